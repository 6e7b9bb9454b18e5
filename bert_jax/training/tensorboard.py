"""The parts of tensorboardX that write an event file."""

import sys

# tensorboardX imports torch where it is installed, which takes longer than all else that a run imports, and uses it
# only for what isn't imported here.
hidden = "torch" not in sys.modules
if hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]  # Importing it then raises ImportError.
try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar
finally:
    if hidden:
        del sys.modules["torch"]

__all__ = ["Event", "EventsWriter", "SessionLog", "scalar"]
