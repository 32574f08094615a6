"""Names the fixture modules; each lies beside this file as `fix_*.py`."""

from warp.testing.servers import describe_programs

pytest_plugins = ["fix_servers", "fix_fragile"]


def pytest_report_header() -> list[str]:
    return describe_programs()
