"""The WSGI application that every host serves: `shared.web:application`."""

from shared.web.application import application

__all__ = ["application"]
