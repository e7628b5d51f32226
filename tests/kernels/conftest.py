"""Triton's interpreter under NumPy 2.4, which no longer reads a one-element array as a number; and in less time."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

if importlib.util.find_spec("triton") is not None:
    from triton.runtime import interpreter

    _patch_tensor, _patch_language = interpreter._patch_lang_tensor, interpreter._patch_lang
    _patched: set[int] = set()  # the globals of those functions for which this launch has patched the language

    def _patch_tensor_and_index(tensor: Any, scope: Any) -> None:
        _patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    class _Scope(interpreter._LangPatchScope):
        """The end of a launch restores the language; the functions that its kernel calls restore nothing."""

        def restore(self) -> None:
            super().restore()
            _patched.clear()

    def _patch_language_once(function: Callable[..., Any]) -> Any:
        """Not in every call of a function, which is a third of the interpreter's time."""
        if id(function.__globals__) in _patched:
            return None
        _patched.add(id(function.__globals__))
        return _patch_language(function)

    interpreter._patch_lang_tensor = _patch_tensor_and_index
    interpreter._LangPatchScope = _Scope
    interpreter._patch_lang = _patch_language_once
