"""The 256 words that fingerprints are read aloud in: one word for each byte, in alphabetical order.

Short, common, unlike one another. The list is part of what people compare: it never changes.
"""

from __future__ import annotations

from typing import Final

_LIST: Final = """
acid actor adult agent alarm album alley amber angle ankle apple apron arena armor arrow atlas attic
audio autumn bacon badge baker bamboo banjo barn basil basket beach beard beaver bench berry bison blade
blanket bottle bracket branch brass bread brick bridge broom brush bucket butter cabin cable cactus camel
camera candle canoe canvas carbon carpet castle cattle cedar cellar chair chalk cherry chess chimney
cinema circus clock cloud clover coach cobalt cocoa coconut coffee comet compass copper coral corner
cotton cousin crane crater crayon cricket crown crystal curtain cushion daisy dancer denim desert diamond
dinner doctor dolphin donkey dragon drawer drum eagle easel echo elbow ember engine envoy fabric falcon
farmer feather fence ferry fiddle flame flannel flute forest fossil fox galaxy garden garlic gecko ginger
giraffe glacier glove goblet granite grape guitar hammer harbor hazel helmet heron hockey honey hornet
hotel iceberg igloo indigo insect island ivory jacket jaguar jasmine jelly jewel jungle kayak kettle
kitchen kiwi koala ladder lagoon lantern laptop laurel lemon leopard lizard lobster locket magnet mammoth
mango maple marble meadow melon meteor mirror mitten monkey mosaic muffin museum mustard napkin nectar
needle nickel noodle nugget oasis ocean olive onion opera orange orchid otter oyster paddle panda paper
parrot peanut pebble pelican pencil pepper piano pigeon pillow pilot planet plaza pocket poem pond poppy
prairie puppet puzzle pyramid quartz rabbit radar radio raven ribbon river robot rocket saddle salmon
sandal satin scarf shovel silver sketch spider sponge squid statue summit sunset tablet temple thunder
ticket tiger timber tomato trumpet tulip tunnel
"""

WORDS: Final = tuple(_LIST.split())
