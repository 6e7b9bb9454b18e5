"""Measurements against another library, in alternating rounds of one run: on a shared machine only ratios tell much."""


def compile_seconds() -> list[float]:
    """A list to which JAX appends the seconds of each program that it compiles from now on."""
    import jax

    seconds: list[float] = []

    def note(event: str, duration_secs: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration"):
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(note)
    return seconds
