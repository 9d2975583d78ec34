"""Reviews of the synthetic world: invented words of known meaning, written in blocks."""

from __future__ import annotations

import dataclasses

import numpy as np

from drex_jax.data.strings import Strings

WORDS_PER_ASPECT = 10
NUM_BACKGROUND = 5000
ZIPF_EXPONENT = 1.0  # of the background words
FREQUENT = ["the", "and", "a", "to", "it", "of", "is", "this", "for", "in", "i", "my", "was", "that", "with", "on",
            "but"]  # fmt: skip
PRAISE = ["good", "great", "excellent", "lovely", "superb", "solid", "perfect", "fine", "splendid", "brilliant"]
BLAME = ["bad", "poor", "awful", "weak", "dreadful", "broken", "horrible", "sloppy", "useless", "terrible"]

MIN_WORDS, MAX_WORDS, MEDIAN_WORDS = 10, 120, 28
LENGTH_SPREAD = 0.6  # standard deviation of the log length
WORDS_PER_MENTION = 6  # a longer review mentions its aspects more often, 2 to 8 times
MAX_MENTIONS = 8
WORD_SKEW = 2  # the first word of an aspect is 6 times as frequent as its last
SENTIMENT_CHANCE = 0.6  # that a mention is followed by praise or blame
SENTENCE_CHANCE, COMMA_CHANCE = 0.09, 0.05  # that a word ends a sentence, or is followed by a comma
ENDINGS = (" ", ", ", ". ", ".")
SPACE, COMMA, SENTENCE, REVIEW = range(len(ENDINGS))


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """All words of a world.

    Attributes:
      aspect_words: the words of each aspect.
      table: words x endings; word w with ending e is entry `w * len(ENDINGS) + e`. Words of aspects come first, then
        praise, blame and background.
      cumulative: cumulative frequencies of the background words, float64 [NUM_BACKGROUND].
    """

    aspect_words: list[list[str]]
    table: Strings
    cumulative: np.ndarray

    @classmethod
    def create(cls, rng: np.random.Generator, num_aspects: int) -> Lexicon:
        """Draw the words. Aspect and background words look alike; the most frequent background words are English."""
        num_aspect_words = num_aspects * WORDS_PER_ASPECT
        invented = _invent(rng, num_aspect_words + NUM_BACKGROUND - len(FREQUENT))
        words = invented[:num_aspect_words] + PRAISE + BLAME + FREQUENT + invented[num_aspect_words:]
        aspect_words = [words[a * WORDS_PER_ASPECT : (a + 1) * WORDS_PER_ASPECT] for a in range(num_aspects)]
        table = Strings.of(word + ending for word in words for ending in ENDINGS)
        return cls(aspect_words, table, np.cumsum(np.arange(1, NUM_BACKGROUND + 1) ** -ZIPF_EXPONENT))

    def write(self, rng: np.random.Generator, aspects: np.ndarray, praise: np.ndarray, present: np.ndarray) -> Strings:
        """Write reviews.

        Args:
          rng: random generator.
          aspects: the two aspects of each review, mentioned in turn, int [n, 2].
          praise: probability that the sentiment about each aspect is praise, float [n, 2].
          present: False for an empty review, bool [n].

        Returns:
          n texts of 10 to 120 lower-case ASCII words.
        """
        n = len(aspects)
        length = MEDIAN_WORDS * np.exp(LENGTH_SPREAD * rng.standard_normal(n))
        length = np.clip(length, MIN_WORDS, MAX_WORDS).astype(np.int64)
        length[~present] = 0
        begin = np.concatenate([[0], np.cumsum(length)])
        first_background = (len(self.aspect_words) * WORDS_PER_ASPECT) + len(PRAISE) + len(BLAME)
        draws = rng.random(begin[-1]) * self.cumulative[-1]
        word = first_background + np.searchsorted(self.cumulative, draws, side="right")

        # mention m of a review lies in the m-th of equal intervals, with space for one word after it
        mentions = np.clip(length // WORDS_PER_MENTION, 2, MAX_MENTIONS) * present
        review = np.repeat(np.arange(n), mentions)
        m = np.arange(len(review)) - np.repeat(np.cumsum(mentions) - mentions, mentions)
        low = m * length[review] // mentions[review]
        high = (m + 1) * length[review] // mentions[review] - 1
        position = begin[review] + rng.integers(low, high)
        which = (WORDS_PER_ASPECT * rng.random(len(review)) ** WORD_SKEW).astype(np.int64)
        word[position] = aspects[review, m % 2] * WORDS_PER_ASPECT + which
        with_sentiment = rng.random(len(review)) < SENTIMENT_CHANCE
        position = position[with_sentiment] + 1
        blamed = rng.random(len(position)) >= praise[review, m % 2][with_sentiment]
        first_praise = len(self.aspect_words) * WORDS_PER_ASPECT
        word[position] = first_praise + blamed * len(PRAISE) + rng.integers(0, len(PRAISE), len(position))

        chance = rng.random(len(word))
        ending = np.where(chance < SENTENCE_CHANCE, SENTENCE, SPACE)
        ending[chance > 1 - COMMA_CHANCE] = COMMA
        ending[begin[1:][present] - 1] = REVIEW
        written = self.table.take(word * len(ENDINGS) + ending)
        return Strings(written.data, written.offsets[begin])


def _invent(rng: np.random.Generator, n: int) -> list[str]:
    """Return n different pronounceable words of 2 to 4 syllables, none of them in the lists above."""
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words: dict[str, None] = dict.fromkeys(FREQUENT + PRAISE + BLAME)
    taken = len(words)
    while len(words) < taken + n:
        count = rng.choice((2, 3, 4), p=(0.3, 0.5, 0.2))
        words["".join(syllables[s] for s in rng.integers(0, len(syllables), count))] = None
    return list(words)[taken:]
