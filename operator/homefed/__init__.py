"""HomeFed federates home Kubernetes clusters; see docs/architecture.md for the layers below this package."""

from typing import Final

VERSION: Final = "0.1.0"
