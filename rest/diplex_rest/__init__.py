"""The REST shim: OpenAI's HTTP API, spoken by a user of the diplex SDK."""
