"""What tests on real servers need: a database of their own, and names for everything they make."""

from tests.harness.database import Database
from tests.harness.names import Names

__all__ = ["Database", "Names"]
