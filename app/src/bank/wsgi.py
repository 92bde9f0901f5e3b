"""What the web server runs."""

from bank.app import create_app

application = create_app()
