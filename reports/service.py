"""An HTTP service of the platform, asked as a person of it."""

from pathlib import Path
from typing import Any, ClassVar

import requests

ANSWER_SECONDS = 30


class ServiceError(Exception):
    """A service gave no answer; the text says why and what to do."""


class Service:
    """One server; each kind of them has a name, a unit of systemd, and errors of its own."""

    name: ClassVar[str]
    unit: ClassVar[str]
    error: ClassVar[type[ServiceError]]

    def __init__(self, url: str, user: str, password: str, authority: Path) -> None:
        self.url = url.rstrip("/")
        self.session = requests.Session()
        # The platform's own authority must be enough, whatever this machine's environment trusts.
        self.session.trust_env = False
        # As bytes, because a password may hold letters that a header does not.
        self.session.auth = (user.encode(), password.encode())
        self.session.verify = str(authority)

    def document(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401 - JSON has many shapes
        """Return the JSON of an answer, also of one that is an error.

        Raises:
            ServiceError: no answer, a wrong password, or an answer that is no JSON; of the kind that the service has.
        """
        try:
            answer = self.session.request(method, f"{self.url}{path}", timeout=ANSWER_SECONDS, **options)
        except (requests.RequestException, OSError) as error:
            raise self.error(
                f"{self.name} at {self.url} does not answer ({error}). "
                f"See that {self.unit} runs there, and that this machine is one of firewall_operator_sources."
            ) from None
        if answer.status_code == requests.codes.unauthorized:
            raise self.error(f"{self.name} at {self.url} refuses the user or the password.")
        try:
            return answer.json()
        except requests.JSONDecodeError:
            raise self.error(f"{self.url} answers {answer.status_code}, and not as {self.name} does.") from None
