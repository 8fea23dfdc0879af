"""The environment that the tests run in: nothing in it starts by itself."""

import sysconfig
from pathlib import Path

# Files that Python runs at every start. A poisoned release of a well-known package used one to
# steal credentials; what is not on this list has no business here.
KNOWN = {
    "_editable_impl_turnpike.pth",  # where this clone lies
    "distutils-precedence.pth",  # setuptools, in environments made by hand
}


def test_no_package_brought_code_that_runs_at_every_start() -> None:
    folders = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    found = {path.name for folder in folders for path in folder.glob("*.pth")}
    assert found - KNOWN == set()
    customized = ("sitecustomize.py", "usercustomize.py")
    assert [name for name in customized for folder in folders if (folder / name).exists()] == []
