"""Where should an attention module go in a CNN, and with which settings?

Data flows one way through the rooms: space -> model -> score -> search -> report -> cli. A room imports only rooms before it.
"""

__version__ = "0.1.0"
