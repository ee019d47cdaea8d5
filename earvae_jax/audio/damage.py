"""The faults that were found while a file was read, and the line that reports them."""

import dataclasses

_SHOWN = 0.005  # seconds: a smaller loss would be printed as 0.00
_TOLERANCE = 0.15  # seconds: headers round, and some of them count priming and padding


@dataclasses.dataclass
class Damage:
    """Faults of one file.

    Attributes:
      packets: number of packets that are damaged or could not be decoded.
      silence: missing seconds that silence replaces.
      left_out: missing seconds that nothing replaces.
      changes: changes of rate or channels inside the stream, in words.
      notes: other faults, in words.
    """

    packets: int = 0
    silence: float = 0.0
    left_out: float = 0.0
    changes: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def describe(self, read: float, announced: float | None) -> str:
        """One line: what is wrong, seconds announced, read and lost; empty if nothing is wrong.

        Args:
          read: seconds of the result, with the silence that replaces missing ones.
          announced: seconds that the header announces; None if it states no length.
        """
        missing = 0.0 if announced is None else announced - read
        faults = list(self.notes)
        if missing > _TOLERANCE:
            faults.insert(0, "cut short")
        elif missing < -_TOLERANCE:
            faults.insert(0, "longer than its header says")
        if self.packets:
            faults.append(f"{self.packets} damaged packet{'s' * (self.packets != 1)}")
        if self.silence and not self.packets:
            faults.append("packets are missing")
        if not faults:
            return ""
        lost = self.silence + max(self.left_out, missing if missing > _TOLERANCE else 0.0)
        inside = f" ({self.silence:.2f} s of them replaced by silence)" if self.silence else ""
        promise = "no length" if announced is None else f"{announced:.2f} s"
        decoded = read - self.silence
        loss = f"{lost:.2f} s lost{inside}" if lost >= _SHOWN else "nothing lost"
        return f"{', '.join(faults)}; {promise} announced, {decoded:.2f} s read, {loss}"
