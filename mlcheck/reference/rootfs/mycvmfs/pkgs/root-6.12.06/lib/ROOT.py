"""Stand-in for PyROOT, with enough of a histogram to fill and query one."""

__version__ = "6.12/06"


class TH1F:
    """A histogram that only counts entries and knows their mean."""

    def __init__(self, name, title, bins, low, high):
        self._values = []

    def Fill(self, value):  # noqa: N802
        self._values.append(value)

    def GetEntries(self):  # noqa: N802
        return float(len(self._values))

    def GetMean(self):  # noqa: N802
        return sum(self._values) / len(self._values)
