"""Stand-in for PyROOT, with so much of a histogram that one can be filled and asked."""

__version__ = "6.12/06"


class TH1F:
    """The part of a histogram that counts and knows its mean."""

    def __init__(self, name, title, bins, low, high):
        self._values = []

    def Fill(self, value):  # noqa: N802
        self._values.append(value)

    def GetEntries(self):  # noqa: N802
        return float(len(self._values))

    def GetMean(self):  # noqa: N802
        return sum(self._values) / len(self._values)
