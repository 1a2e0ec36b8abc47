"""The checkpoints of this family: their names are those of its modules."""

from sam3_build.family_code import Format, KeyTables

KEYS = KeyTables(
    model="the blinker",
    whole="Blinker",
    formats=(Format("its own names", roots=("encoder.", "decoder.", "update.")),),
)
