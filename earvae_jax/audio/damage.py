"""What was found wrong with a file while it was read, and how a person is told."""

import dataclasses

_SHOWN = 0.005  # seconds: less reads 0.00
_TOLERANCE = 0.15  # seconds: headers round, and count priming and padding or do not


@dataclasses.dataclass
class Damage:
    """Faults of one file.

    Attributes:
      packets: that could not be decoded, or came damaged.
      silence: seconds that are missing, with silence in their place.
      left_out: seconds that are missing, without anything in their place.
      changes: of rate or channels inside the stream, in words.
      notes: other faults, in words.
    """

    packets: int = 0
    silence: float = 0.0
    left_out: float = 0.0
    changes: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def describe(self, read: float, announced: float | None) -> str:
        """One line: what is wrong, seconds announced, read and lost; empty where all is well.

        Args:
          read: seconds that the result has, silence in the place of missing ones included.
          announced: seconds that the header promises; None where it does not.
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
