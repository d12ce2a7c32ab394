"""What is printed of a judgement (layer: evaluation)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from rich.table import Table


class Measured(ABC):
    """Measures by name, for a terminal."""

    @abstractmethod
    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""

    def table(self, title: str = "") -> Table:
        """The rows for a terminal."""
        table = Table("measure", "value", title=title, title_justify="left")
        for measure, value in self.rows().items():
            table.add_row(measure, value)
        return table
