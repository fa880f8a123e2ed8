"""What vLLM's, SGLang's and TensorRT-LLM's gRPC services call things: those of PyPI `smg-grpc-proto`.

All take token ids and send token ids: a chunk brings new ones, one `complete` a sequence ends it. None of the
three takes a priority. vLLM's and SGLang's tell their load; TensorRT-LLM's tells nothing of its cache. Names
from the package's own .proto files, 0.4.28; their numeric fields have no default that means "as usual", so
each is stated.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Final

from grpc import StatusCode

from diplex.v1 import generation_pb2 as pb
from diplex.wire.status import Problem
from diplex_workers.engines.dialects.dialect import Gauges, Offered
from diplex_workers.engines.engine import Job

_PACKAGE: Final = "smg_grpc_proto.generated"
_SEED_BITS: Final = 0x7FFF_FFFF
_PLAIN: Final = MappingProxyType(
    {
        name: name
        for name in (
            *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
            "repetition_penalty",
        )
    }
)


class GrpcDialect:
    """One of the services, its generated modules loaded when it is made.

    Raises:
        Problem: the package is not installed.
    """

    module: ClassVar[str]
    service: ClassVar[str]
    # diplex's sampling fields that it has, by its own names; `stop` and `ignore_eos` all have.
    sampling: ClassVar[Mapping[str, str]]

    def __init__(self) -> None:
        try:
            self.pb: Any = import_module(f"{_PACKAGE}.{self.module}_pb2")
            self.common: Any = import_module(f"{_PACKAGE}.common_pb2")
            self._rpc: Any = import_module(f"{_PACKAGE}.{self.module}_pb2_grpc")
        except (ImportError, RuntimeError) as error:  # generated code refuses older grpcio so
            message = (
                f"engines over gRPC need smg-grpc-proto: {error}. Mend: pip install 'diplex[grpc-engines]'"
            )
            raise Problem(StatusCode.FAILED_PRECONDITION, message, "ENGINE_UNSAID") from error

    def stub(self, channel: Any) -> Any:
        return getattr(self._rpc, f"{self.service}Stub")(channel)

    def request(self, job: Job, name: str, ids: Sequence[int], max_tokens: int) -> Any:
        raise NotImplementedError

    def abort(self, name: str) -> Any:
        return self.pb.AbortRequest(request_id=name)

    def well(self, health: Any) -> str:
        """What a health answer says is wrong; empty: nothing."""
        return "" if health.healthy else health.message or "it is not healthy"

    async def offered(self, stub: Any, within: float) -> tuple[str, Offered]:
        """The model's name there, and what it is."""
        raise NotImplementedError

    async def gauges(self, stub: Any, within: float) -> Gauges:
        loads = (await stub.GetLoads(self.pb.GetLoadsRequest(), timeout=within)).loads
        if not loads:
            return Gauges()
        return Gauges(
            used=sum(load.token_usage for load in loads) / len(loads),
            running=sum(load.num_running_reqs for load in loads),
            waiting=sum(load.num_waiting_reqs for load in loads),
        )

    def index(self, part: Any) -> int:
        """Which sequence a chunk or an end is about."""
        return int(part.index)

    def ids(self, complete: Any) -> Sequence[int]:
        """All that a sequence came to, as its end says."""
        ids: Sequence[int] = complete.output_ids
        return ids

    def stated(self, sampling: pb.Sampling) -> dict[str, Any]:
        """What was stated, under its own names.

        Raises:
            Problem: INVALID_ARGUMENT, it has no word for one of them.
        """
        words: dict[str, Any] = {}
        for field, value in sampling.ListFields():
            match field.name:
                case "max_tokens_stated":
                    pass
                case "stop":
                    words["stop"] = list(value)
                case "ignore_eos":
                    words["ignore_eos"] = value
                case name if name in self.sampling:
                    words[self.sampling[name]] = value
                case name:
                    message = f"{self.service} takes no {name}. Mend: leave {name} out"
                    raise Problem(StatusCode.INVALID_ARGUMENT, message, "BAD_SAMPLING", field=name)
        if "seed" in words:
            words["seed"] &= _SEED_BITS
        return words


class VllmGrpc(GrpcDialect):
    module, service = "vllm_engine", "VllmEngine"
    sampling = MappingProxyType(_PLAIN | {"min_tokens": "min_tokens", "seed": "seed"})

    def request(self, job: Job, name: str, ids: Sequence[int], max_tokens: int) -> Any:
        usual = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0, "skip_special_tokens": True}
        usual |= {"spaces_between_special_tokens": True, "n": job.choices, "max_tokens": max_tokens}
        return self.pb.GenerateRequest(
            request_id=name,
            tokenized=self.pb.TokenizedInput(input_ids=ids),
            sampling_params=self.pb.SamplingParams(**(usual | self.stated(job.sampling))),
            stream=True,
        )

    def abort(self, name: str) -> Any:
        return self.pb.AbortRequest(request_ids=[name])

    async def offered(self, stub: Any, within: float) -> tuple[str, Offered]:
        model = await stub.GetModelInfo(self.pb.GetModelInfoRequest(), timeout=within)
        server = await stub.GetServerInfo(self.pb.GetServerInfoRequest(), timeout=within)
        loads = (await stub.GetLoads(self.pb.GetLoadsRequest(), timeout=within)).loads
        return model.served_model_name or model.model_path, Offered(
            capacity=sum(load.max_total_num_tokens for load in loads) or None,
            block_tokens=server.block_size or None,
            slots=server.max_num_seqs or None,
            context=model.max_context_length or None,
        )


class SGLangGrpc(GrpcDialect):
    module, service = "sglang_scheduler", "SglangScheduler"
    sampling = MappingProxyType(_PLAIN | {"min_tokens": "min_new_tokens"})

    def request(self, job: Job, name: str, ids: Sequence[int], max_tokens: int) -> Any:
        usual = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "n": job.choices}
        usual |= {"skip_special_tokens": True, "spaces_between_special_tokens": True}
        usual |= {"max_new_tokens": max_tokens}
        return self.pb.GenerateRequest(
            request_id=name,
            tokenized=self.pb.TokenizedInput(input_ids=ids),
            sampling_params=self.pb.SamplingParams(**(usual | self.stated(job.sampling))),
            stream=True,
        )

    async def offered(self, stub: Any, within: float) -> tuple[str, Offered]:
        model = await stub.GetModelInfo(self.pb.GetModelInfoRequest(), timeout=within)
        server = await stub.GetServerInfo(self.pb.GetServerInfoRequest(), timeout=within)
        loads = (await stub.GetLoads(self.pb.GetLoadsRequest(), timeout=within)).loads
        return model.served_model_name or model.model_path, Offered(
            capacity=server.max_total_num_tokens or None,
            slots=sum(load.max_running_requests for load in loads) or None,
            context=model.max_context_length or None,
            version=server.sglang_version,
        )


class TrtLlmGrpc(GrpcDialect):
    module, service = "trtllm_service", "TrtllmService"
    sampling = MappingProxyType(_PLAIN | {"min_tokens": "min_tokens", "seed": "seed"})

    def request(self, job: Job, name: str, ids: Sequence[int], max_tokens: int) -> Any:
        stated = self.stated(job.sampling)
        ours = {word: stated.pop(word) for word in ("stop", "ignore_eos") if word in stated}
        config = {"beam_width": 1, "num_return_sequences": job.choices} | stated
        return self.pb.GenerateRequest(
            request_id=name,
            tokenized=self.pb.TokenizedInput(input_token_ids=ids),
            sampling_config=self.pb.SamplingConfig(**config),
            output_config=self.pb.OutputConfig(exclude_input_from_output=True),
            max_tokens=max_tokens,
            streaming=True,
            **ours,
        )

    def well(self, health: Any) -> str:
        return "" if health.status == "OK" else health.status or "it says nothing"

    async def offered(self, stub: Any, within: float) -> tuple[str, Offered]:
        model = await stub.GetModelInfo(self.pb.GetModelInfoRequest(), timeout=within)
        server = await stub.GetServerInfo(self.pb.GetServerInfoRequest(), timeout=within)
        return model.model_id, Offered(
            slots=model.max_batch_size or None, context=model.max_seq_len or None, version=server.version
        )

    async def gauges(self, stub: Any, within: float) -> Gauges:
        return Gauges()

    def index(self, part: Any) -> int:
        return int(part.sequence_index)

    def ids(self, complete: Any) -> Sequence[int]:
        ids: Sequence[int] = complete.output_token_ids
        return ids


GRPC_DIALECTS: Final[Mapping[str, type[GrpcDialect]]] = MappingProxyType(
    {"vllm-grpc": VllmGrpc, "sglang-grpc": SGLangGrpc, "trtllm-grpc": TrtLlmGrpc}
)
