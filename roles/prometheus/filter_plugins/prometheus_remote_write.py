"""What cannot work with the receivers that Prometheus is to send samples to, in words."""

import re
from collections.abc import Iterator, Mapping, Sequence

NAME = re.compile(r"[A-Za-z0-9_-]+")
# An address holds no log-in: it would be shown by the API and in logs.
URL = re.compile(r"https://[^\s/@]+(/\S*)?")
DURATION = re.compile(r"([0-9]+(ms|[smhd]))+")
# What Prometheus drops from the ends of a password's file, or ends its line.
NOT_IN_A_FILE = re.compile(r"^\s|\s$|[\r\n\x00]")


def of_one(receiver: Mapping[str, object]) -> Iterator[str]:
    """Yield what is wrong with one receiver."""
    name = str(receiver["name"])
    if not NAME.fullmatch(name):
        yield f'The name "{name}" needs letters, digits, dashes and underscores only.'
    if not URL.fullmatch(str(receiver["url"])):
        yield (
            f"The url of {name} must begin with https:// and hold no user, password or space: samples are not sent in"
            " clear text."
        )
    password = str(receiver.get("password") or "")
    if bool(receiver.get("user")) != bool(password):
        yield f"{name} needs user and password both, or neither."
    if NOT_IN_A_FILE.search(password):
        yield f"The password of {name} has a space at an end or a line break, which no file of Prometheus keeps."
    for key, value in dict(receiver.get("queue") or {}).items():
        if isinstance(value, str):
            if not DURATION.fullmatch(value):
                yield f'The queue of {name} has {key} "{value}": write a duration like 5s.'
        elif value is not None and value < 1:
            yield f"The queue of {name} has {key} {value}: write a number above 0."


def prometheus_remote_write_problems(receivers: Sequence[Mapping[str, object]]) -> list[str]:
    """Return what is wrong with the receivers, a sentence each; nothing when they can work.

    Args:
        receivers: As the role's specification has them, so with a name and a url.
    """
    names = [receiver["name"] for receiver in receivers]
    problems = [problem for receiver in receivers for problem in of_one(receiver)]
    return problems + (["Two receivers have one name."] if len(set(names)) < len(names) else [])


class FilterModule:
    """Filters offered to templates."""

    def filters(self) -> dict:
        """Return the filters by name."""
        return {"prometheus_remote_write_problems": prometheus_remote_write_problems}
