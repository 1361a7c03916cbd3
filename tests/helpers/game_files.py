"""Games as other programs and sites write them, odd ones as if their second player had swapped."""

from __future__ import annotations

import json

from hexshards.conversion.random_files import trmph_line
from hexshards.game.board import BLUE, move_name


def names(game):
    return [move_name(cell, side=game.side) for cell in game.moves]


def mirrored(name):
    return f"{chr(ord('a') + int(name[1:]) - 1)}{ord(name[0]) - ord('a') + 1}"


def with_swap(game):
    """The same game as a site writes it whose second player swapped pieces: what follows lies in the mirror."""
    first, *rest = names(game)
    return [first, "swap-pieces", *map(mirrored, rest)], 1 - game.winner


def playhex(games, **entry):
    """An export; each game whose number is odd was swapped."""
    entries = []
    for number, game in enumerate(games):
        moves, winner = with_swap(game) if number % 2 else (names(game), game.winner)
        won = "red" if winner == BLUE else "blue"
        entries.append(
            {"id": "x", "boardsize": game.side, "moves": " ".join(moves), "winner": won, "outcome": "path"} | entry
        )
    return json.dumps(entries).encode()


def hexworld(games):
    lines = []
    for number, game in enumerate(games):
        moves = with_swap(game)[0] if number % 2 else names(game)
        lines.append(f"https://hexworld.org/board/#{game.side}r9c1,{''.join(moves).replace('swap-pieces', ':s')}")
    return "\n".join(lines).encode()


def sgf(games, *, littlegolem=False):
    """Games of which Black begins the even ones and White the odd ones, which were swapped."""
    records = []
    for number, game in enumerate(games):
        moves, winner = with_swap(game) if number % 2 else (names(game), game.winner)
        colours = "WB" if number % 2 else "BW"
        won = colours[winner]
        nodes = "".join(f";{colours[ply % 2]}[{_lg(move) if littlegolem else move}]" for ply, move in enumerate(moves))
        result = won if littlegolem else f"{won}+"
        records.append(f"(;FF[4]{'' if littlegolem else 'GM[11]'}SZ[{game.side}]PB[a\\]b]RE[{result}]{nodes})")
    return "\n".join(records).encode()


def _lg(move):
    return "swap" if move == "swap-pieces" else f"{move[0]}{chr(ord('a') + int(move[1:]) - 1)}"


def trmph(games):
    return "".join(trmph_line(game) + "\n" for game in games).encode()


def minizero(games):
    """Odd games were swapped: the second move is the first one again."""
    records = []
    for number, game in enumerate(games):
        moves, winner = with_swap(game) if number % 2 else (names(game), game.winner)
        ids = [_id(move, game.side) for move in moves if move != "swap-pieces"]
        ids = [ids[0], *ids] if number % 2 else ids
        nodes = "".join(f";{'BW'[ply % 2]}[{move}]P[{move}:30]V[0.1]R[0]" for ply, move in enumerate(ids))
        records.append(f"SelfPlay 1 2 (;GM[hex_5x5]RE[{1 - 2 * winner}.000000]SZ[{game.side}]{nodes})#")
    return "\n".join(records).encode()


def _id(move, side):
    row, col = int(move[1:]) - 1, ord(move[0]) - ord("a")
    return (side - 1 - col) * side + row


def shf(games):
    lines = [f"#{games[0].side} x {games[0].side} Hex"]
    for game in games:
        moves = " ".join(f"{'BW'[ply % 2]}[{move}]" for ply, move in enumerate(names(game)))
        to_move = len(game.moves) % 2
        lines.append(f"{moves} {1.0 if game.winner == to_move else -1.0}")
    return "\n".join(lines).encode()
