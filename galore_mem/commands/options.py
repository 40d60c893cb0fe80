"""Options that several commands share, and the panels that help shows them in."""

from typing import Annotated

from cyclopts import Group, Parameter

from galore_mem.answers.settings import Settings

QUESTION = Group("What is asked", sort_key=0)
RUN = Group("The training run", sort_key=1)
OUTPUT = Group("The answer", sort_key=2)

ModelName = Annotated[str, Parameter(group=QUESTION)]
Names = Annotated[tuple[str, ...], Parameter(group=QUESTION, show_default=False)]
Run = Annotated[Settings, Parameter(name="*", group=RUN)]
Size = Annotated[str | None, Parameter(group=QUESTION)]
Limit = Annotated[str | None, Parameter(group=OUTPUT)]
Flag = Annotated[bool, Parameter(group=OUTPUT, show_default=False)]
DEFAULT_RUN = Settings()
