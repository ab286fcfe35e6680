"""How what was sent is named to whoever takes it back: a text by its job and places, a card by its artifact id."""


def text_id(job_id: str, *places: str) -> str:
    """Returns the id of a text that was sent at these places of a job (several for a long one), which have no spaces."""
    return " ".join((job_id, *places))


def places_in(sent_id: str) -> list[tuple[str, str]]:
    """Returns the job and place of each part of a text with this id; none for the id of a card."""
    job_id, *places = sent_id.split(" ")
    return [(job_id, place) for place in places]
