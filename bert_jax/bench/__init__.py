"""Measurements beside a peer, in alternating rounds of one run: on a shared machine only the ratio says much."""


def compile_seconds() -> list[float]:
    """A list that grows by the seconds of each program that JAX compiles from now on."""
    import jax

    found: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return found
