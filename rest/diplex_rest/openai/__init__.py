"""What OpenAI's requests, responses and errors look like. Pure: values in, values and bytes out."""
