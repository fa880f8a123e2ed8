"""The official openai package against the REST shim: only the base URL is ours."""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7601"
client = OpenAI(base_url=f"{url}/v1", api_key="any")
stream = client.chat.completions.create(
    model="smollm2-135m-instruct",
    messages=[{"role": "user", "content": "Name three rivers."}],
    max_tokens=48,
    stream=True,
    extra_headers={"X-Diplex-Tier": "interactive"},
)
for chunk in stream:
    print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
