"""Everything that thinks: pictures, models, tasks, backends and the web application. Knows no cloud."""

__version__ = "0.1.0"
