"""The colours of the page and of everything drawn: on light and on dark ground, by one set of names."""

from __future__ import annotations

SERIES = 8
"""Colours of curves, stages and classes, ``s0`` to ``s7``; from the ninth on they come again."""
LIGHT = {
    "bg": "#faf9f6",
    "card": "#ffffff",
    "ink": "#1f2328",
    "muted": "#5b626c",
    "line": "#e3e1db",
    "soft": "#f1efea",
    "accent": "#27598c",
    "bar": "#dfe8f1",
    "mark": "#fdf0c4",
    "mark-ink": "#5c4300",
    "flag": "#9a2f17",
    "flag-bg": "#fbe6df",
    "s0": "#2f6db3",
    "s1": "#c65a11",
    "s2": "#1f8a70",
    "s3": "#a13d82",
    "s4": "#7a6a00",
    "s5": "#5b52b5",
    "s6": "#b5323f",
    "s7": "#4d6472",
}
DARK = {
    "bg": "#15171a",
    "card": "#1c1f23",
    "ink": "#e8e6e1",
    "muted": "#a3a9b1",
    "line": "#2f343a",
    "soft": "#23272c",
    "accent": "#8dbcec",
    "bar": "#2b3d50",
    "mark": "#4a3d12",
    "mark-ink": "#fbe7a8",
    "flag": "#ffb39e",
    "flag-bg": "#45211a",
    "s0": "#7db2ee",
    "s1": "#f2a065",
    "s2": "#5fc9ac",
    "s3": "#e08fc6",
    "s4": "#d3c355",
    "s5": "#aaa3f2",
    "s6": "#f28b93",
    "s7": "#a3b8c4",
}
VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
"""What stands in the page for a colour on light ground, so that dark pages can have the other."""


def style_rules() -> str:
    """The head of the page's style sheet: a variable for every name, with the colour that suits the reader's screen."""
    light, dark = ("".join(f" --{name}: {colour};" for name, colour in scheme.items()) for scheme in (LIGHT, DARK))
    return f":root {{{light} }}\n@media (prefers-color-scheme: dark) {{ :root {{{dark} }} }}\n"
