"""Write the installed package as a wheel, without a build backend or network.

The format is PEP 427. Equal sources give equal bytes, so that image layers can be cached.
"""

import base64
import hashlib
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import tracer_serve

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can store
_KIND = "Wheel-Version: 1.0\nGenerator: tracer-serve\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a new folder and return its path."""
    found = distribution("tracer-serve")
    stem = f"tracer_serve-{found.version}"
    package = Path(tracer_serve.__file__).parent
    files = {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"{stem}.dist-info"
    for name in ("METADATA", "entry_points.txt"):
        files[f"{info}/{name}"] = (found.read_text(name) or "").encode()
    files[f"{info}/WHEEL"] = _KIND.encode()
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return wheel


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
