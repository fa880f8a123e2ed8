"""One request in plain gRPC, proxied by the router: what a client in any language does."""

import sys

import grpc

from diplex.v1 import generation_pb2, router_pb2, router_pb2_grpc

request = router_pb2.RouterGenerateRequest(
    model="qwen2.5-72b-instruct",
    tier="standard",
    prompt=generation_pb2.Prompt(text="Name three rivers."),
    max_tokens=16,
)
with grpc.insecure_channel(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7600") as channel:
    for answer in router_pb2_grpc.RouterStub(channel).Generate(request):
        print("".join(tokens.text for tokens in answer.tokens), end="", flush=True)
        if answer.HasField("done"):
            print("\nended:", generation_pb2.EndReason.Name(answer.done.reason))
