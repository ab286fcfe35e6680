"""What an owner's lifespan may share."""

from dataclasses import dataclass


@dataclass
class Database:
    name: str


@dataclass
class Cache:
    name: str
