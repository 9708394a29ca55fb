from tests.run.fixtures import disk, prepared

__all__ = ["disk", "prepared"]
