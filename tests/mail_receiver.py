"""Stands for a mail relay that wants TLS and a log-in: writes down each mail that it takes.

Runs on a host of a scenario: python3 mail_receiver.py PORT FILE CERTIFICATES USER PASSWORD_FILE.
"""

import base64
import json
import socketserver
import ssl
import sys
import time
from pathlib import Path


class MailReceiver(socketserver.StreamRequestHandler):
    """Takes the mails of one connection."""

    context: ssl.SSLContext
    file: Path
    login: bytes

    def say(self, line: str) -> None:
        """Send one line."""
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        """Answer commands until the other side leaves."""
        secure = known = False
        recipients: list[str] = []
        self.say("220 mail receiver")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.partition(" ")[0].upper()
            if verb in {"EHLO", "HELO"}:
                self.say("250-mail receiver")
                self.say("250 AUTH PLAIN" if secure else "250 STARTTLS")
            elif verb == "STARTTLS":
                self.say("220 go on")
                self.connection = self.context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                secure = True
            elif verb == "AUTH" and secure:
                known = base64.b64decode(line.split()[-1]).split(b"\0")[1:] == self.login.split(b"\0")
                self.say("235 welcome" if known else "535 wrong user or password")
            elif verb == "QUIT":
                self.say("221 good bye")
                return
            elif not known:
                self.say("530 log in first, after STARTTLS")
            elif verb == "RCPT":
                recipients.append(line.partition(":")[2].strip("<> "))
                self.say("250 fine")
            elif verb == "DATA":
                self.say("354 go on")
                self.write_down(recipients)
                recipients = []
                self.say("250 taken")
            else:
                self.say("250 fine")

    def write_down(self, recipients: list[str]) -> None:
        """Read one mail and write it down."""
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        entry = {"path": "mail", "to": recipients, "at": time.time(), "body": b"".join(lines).decode()}
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def main() -> None:
    """Serve until the end."""
    port, file, folder, user, password = sys.argv[1:]
    MailReceiver.file = Path(file)
    MailReceiver.login = f"{user}\0{Path(password).read_text(encoding='utf-8').strip()}".encode()
    MailReceiver.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    MailReceiver.context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("", int(port)), MailReceiver) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
