"""Read a pickle without running it.

A pickle is a program: to load one is to run what its author wrote. Here nothing is loaded. The opcodes are read one by one
into inert data; what a pickle asks to import, to make or to call becomes a `Record` of the wish.
"""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field
from typing import Any

from clozeline.errors import InputError


@dataclass(eq=False)
class Record:
    """What a pickle wants made. name: "module name", the class or function; args: what it is to be given; state, items: what
    it is to be filled with. A name alone has no args."""

    name: str
    args: Any = None
    state: Any = None
    items: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.name}>"  # never the parts: they may hold each other without end


PLAIN = ("INT", "LONG", "STRING", "BYTES", "UNICODE", "FLOAT", "BYTEARRAY")
"""Opcodes with one of these in their names push a value."""


def inert(pickled: bytes, name: str) -> Any:
    """What a pickle describes: lists, dicts with keys that are text, tuples, numbers, text, bytes; all else is a `Record`.

    Nothing is imported and nothing is called. name: of the file, for errors.

    Raises:
        InputError: it is no pickle, is damaged, or refers to something outside itself.
    """
    try:
        return _built(pickled)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name} is no pickle, or a damaged one: {error!s:.100}.") from error


def _built(pickled: bytes) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # the stacks under each mark that is open
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        name = opcode.name
        marked: list[Any] = []
        if name in ("APPENDS", "SETITEMS", "ADDITEMS", "LIST", "DICT", "TUPLE", "FROZENSET", "OBJ", "INST", "POP_MARK"):
            stack, marked = below.pop(), stack
        match name:
            case "PROTO" | "FRAME" | "POP_MARK":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                below.append(stack)
                stack = []
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                memo[len(memo) if argument is None else argument] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(name == "NEWTRUE")
            case "EMPTY_LIST" | "LIST":
                stack.append(marked)
            case "EMPTY_DICT" | "DICT":
                stack.append({})
                _fill(stack[-1], marked)
            case "EMPTY_TUPLE" | "TUPLE":
                stack.append(tuple(marked))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                at = len(stack) - int(name[-1])
                stack[at:] = [tuple(stack[at:])]
            case "EMPTY_SET" | "FROZENSET":
                stack.append(Record("builtins set", items=marked))
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS" | "ADDITEMS":
                _extend(stack[-1], marked)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _fill(stack[-1], [key, value])
            case "SETITEMS":
                _fill(stack[-1], marked)
            case "GLOBAL":
                stack.append(Record(argument))
            case "STACK_GLOBAL":
                own, module = stack.pop(), stack.pop()
                stack.append(Record(" ".join((module, own))))
            case "INST":
                stack.append(Record(argument, tuple(marked)))
            case "OBJ":
                stack.append(Record(marked[0].name, tuple(marked[1:])))
            case "NEWOBJ_EX":
                named, given, wanted = stack.pop(), stack.pop(), stack.pop()
                stack.append(Record(wanted.name, given, items=[named]))
            case "REDUCE" | "NEWOBJ":
                given, wanted = stack.pop(), stack.pop()
                stack.append(Record(wanted.name, given))
                match given:
                    case (Record() as cell, "cell_contents", held):  # dill may fill a cell after it is made
                        cell.args = (held,)
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case _ if any(kind in name for kind in PLAIN):
                if isinstance(argument, str):
                    argument.encode()  # half an emoji is no text
                stack.append(argument)
            case _:
                raise ValueError(f"it refers to something outside itself ({name})")
    raise ValueError("it has no end")


def _extend(into: Any, values: list[Any]) -> None:
    (into.items if isinstance(into, Record) else into).extend(values)


def _fill(into: Any, values: list[Any]) -> None:
    """Put keys and values, one after the other, into a dict or a record; of a dict only keys that are text are of use."""
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if isinstance(into, Record):
        into.items.extend(pairs)
    else:
        into.update((key, value) for key, value in pairs if isinstance(key, str))
