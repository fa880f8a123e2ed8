"""What a request has produced so far, kept only as far as another worker would need it to go on."""

from diplex.v1 import generation_pb2 as pb


class Produced:
    """Output of all attempts together.

    Args:
        keeps: whether the output itself is kept; without it only the counts are.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.keeps = keeps
        self._counts: dict[int, int] = {}
        self._ids: list[int] = []
        self._texts: list[str] = []
        self._ids_known = True

    @property
    def longest(self) -> int:
        """Tokens of the longest choice."""
        return max(self._counts.values(), default=0)

    def add(self, tokens: pb.Tokens) -> None:
        count = tokens.count
        self._counts[tokens.choice] = tokens.index + count
        if self.keeps:
            # Copies, not the message: it would keep a whole frame alive, with its neighbours' tokens. A slice
            # is a list at once, where the field itself is iterated over at twice the price.
            ids = tokens.ids[:]
            self._ids_known = self._ids_known and len(ids) == count
            self._ids += ids
            self._texts.append(tokens.text)

    def as_resume(self) -> pb.Resume | None:
        """What the next worker reads as prompt: ids where all are known, else text; `None`: nothing yet."""
        if not self.longest:
            return None
        if self._ids_known:
            return pb.Resume(from_index=self.longest, ids=self._ids)
        return pb.Resume(from_index=self.longest, text="".join(self._texts))
