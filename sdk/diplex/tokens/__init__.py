"""Prompts counted exactly, with the model's own tokenizer and chat template (extra `tokenizers`).

`sources` finds a tokenizer on this machine, `tokenizer` and `template` read a prompt with it, `counter` is
what the client asks. docs/guide/tokens.md tells what it is good for.
"""
