"""What do audio files say of themselves, and how is it written into a book? The only users of mutagen."""

from aiom4b.adapters.tags.reading import embedded_cover, read_tags
from aiom4b.adapters.tags.writing import BookTags, book_id_of, book_tags, read_back, write_tags

__all__ = ["BookTags", "book_id_of", "book_tags", "embedded_cover", "read_back", "read_tags", "write_tags"]
