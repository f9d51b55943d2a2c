"""`ray start` without what looks outside: python -m localism.serving.ray_start OPTIONS

Ray 2.60 begins a "dashboard" process on its head even with the dashboard off. Its only work then is
to ask three clouds whether this is one of theirs, and to report to Ray's makers that reporting is
off. No option or variable prevents that, so the function that starts it is replaced; and so is the
test that opens a port for clients outside the cluster. Both names fail loudly where they are gone.
"""

from typing import Any


def main() -> None:
    """Ray's own command line, with this program's options."""
    from ray._private import services
    from ray.scripts import scripts

    assert callable(services.start_api_server)
    assert callable(scripts.get_ray_client_dependency_error)
    services.start_api_server = _no_dashboard
    scripts.get_ray_client_dependency_error = lambda: "not wanted here"
    scripts.start.main()


def _no_dashboard(*_: Any, **__: Any) -> tuple[str, None]:
    """No address of a page, and no process."""
    return "", None


if __name__ == "__main__":
    main()
