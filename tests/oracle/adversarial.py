"""Lines that are hard to tokenise, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable

WORDS = [
    "a", "the", "A", "The", "man", "dog's", "two", "street", "red", "Women", "and's", "on", "left",
    "right", "pole's", "I", "it",
]  # fmt: skip
ABBREVIATIONS = [
    "Mr.", "mrs.", "DR.", "St.", "st.", "Ave.", "Blvd.", "Jr.", "etc.", "Inc.", "Ltd.", "Co.", "Corp.",
    "Jan.", "Sept.", "Mon.", "Tues.", "Calif.", "Pa.", "Ill.", "ill.", "mass.", "No.", "no.", "Nos.",
    "fig.", "Figs.", "p.", "pp.", "ca.", "art.", "vs.", "approx.", "Ph.D.", "Ed.D.", "ph.d.", "U.S.",
    "u.s.", "U.S.A.", "U.K.", "a.m.", "P.M.", "e.g.", "i.e.", "a.k.a.", "J.", "b.", "I.", "A.", "B.C.",
    "D.C.", "Pty.", "pte.", "co.ltd", "St.John", "st.x", "etc.x", "no.5", "No.7a", "Bros.", "Univ.",
    "Gen.", "Capt.", "Mt.", "Ft.", "Msgr.", "sq.", "vol.", "U.S.-based", "Canada-U.S.", "x.y.z.",
    "lbs.", "sec.", "Dept.", "assn.", "Mfg.", "MFG.", "wed.", "sat.", "sun.", "may.", "June.", "Oct.x",
    "jan.B", "co.-a",
]  # fmt: skip
NUMBERS = [
    "$5", "$5.00", "US$5", "C$1,000", "$.50", "5$", "#5", "5#", "50\xa2", "\xa35", "\u20ac5.50",
    "\xa5100", "5%", "5.5%", "%5", "10\xb0C", "90\xb0", "1/2", "3/4", "11/2", "1", "1/2", "5-1/2",
    "1\xa01/2", "1\u20442", "\xbd", "\xbc\xbe", "1\xbd", "\u2153", "\u2154", "\u215e", "x\xb2",
    "H\u2082O", "10\u207b\xb2", "3:30", "3:30pm", "3:30p.m.", "10:00:00", "12/25/2014", "12-25-14",
    "2014-12-25", "1/2/3", "24/7", "1,000", "1,000,000.5", "1.2.3", ".5", "-.5", "+.5", "-5", "+5",
    "5+", "5-", "--5", "1st", "2nd", "90s", "90's", "'90s", "'99", "'9", "\u201980s", "5'6\"", "6\"",
    "2x4", "12\"x12\"", "555-1234", "(555)", "123-4567", "555", "123", "4567", "1-800-555-1234",
    "1 1/2", "(555) 123-4567", "555 123 4567",
    "+1 555 123 4567", "555.123.4567", "+1", "12", "34", "5678",
    "5k", "5lb", "5a.", "99.,", "1.,", "3.,", "\u0663\u0664",
    "\u096f", "1\u066b5", "\uff11\uff12",
]  # fmt: skip
ADDRESSES = [
    "http://www.foo.com/bar?x=1&y=2", "https://foo.org/a_(b).", "www.foo.com", "www.foo.co.uk/x,",
    "foo.com", "foo.net/bar.", "1foo.com", "a-b.com", "x$y.com", "\xe9.com", "http://a", "http://",
    "ftp://foo.com", "HTTP://X.COM", "joe@foo.com", "<joe@foo.com>", "a.b@c-d.org.", "x@y", "@joe",
    "@joe_1", "@1a", "#cat", "#cat1", "#1", "#a-b", "##x", "@@", "file.txt", "photo.jpg", "a.b.c.html",
    "1.mp3", "my-file.pdf", "/usr/bin", "C:\\x.exe", "x.tar.gz", "http://ex.com/\xe9", "x+y.com",
    "foo!bar.com", "\u4e2d.com", "http://\U0001f600.x",
]  # fmt: skip
QUOTES = [
    "\"a\"", "'a'", "\u201ca\u201d", "\u2018a\u2019", "``a''", "`a`", "\xaba\xbb", "\u2039a\u203a",
    "\u201ea\u201d", "\u201aa\u2019", "''a''", "\"'a'\"", "'\"a\"'", "\u2018\u2018a\u2019\u2019",
    "\x93a\x94", "\x91a\x92", "&quot;a&quot;", "&apos;a", "'", "''", "'''", "\"", "\"\"", "`", "``",
    "\u201c\u201d", "\u2019\u2019", "\u2018\u2019", "'`",
]  # fmt: skip
BRACKETS = [
    '<a b>', '<a b="c d">', "<a b='c' />", "<!-- x -->", "<br />",
    "(a)", "[a]", "{a}", "<a>", "<a", "b>", "<b>x</b>", "<br", "/>", "<a", "href=\"x", "y\">", "<!--",
    "x", "-->", "<>", "((", "))", "[]", "{}", "<<", ">>", "<", ">", "&lt;a&gt;", "-LRB-", "-rrb-", "<3",
    "<-",
]  # fmt: skip
CLITICS = [
    "don't", "DON'T", "don\u2019t", "don`t", "can't", "cann't", "isn't.", "won't,", "I'm", "he's",
    "she\u2019s", "they'll", "we've", "I'd", "I'd've", "dog's", "dogs'", "o'clock", "O'Neil",
    "d'Artagnan", "l'homme", "y'all", "ma'am", "'tis", "'Tis", "\u2019tis", "'twas", "'em", "\u2019em",
    "'n'", "rock'n'roll", "'n", "ol'", "goin'", "'cause", "'til", "c'mon", "cont'd.", "aujourd'hui",
    "qu'il", "it&apos;s", "it\u2019sa", "n't", "'s", "'S", "'x", "'nuff", "Dunkin'", "s'mores",
]  # fmt: skip
ASSIMILATIONS = [
    "cannot", "CANNOT", "gonna", "Wanna", "gotta", "lemme", "gimme", "whaddya", "d'ye", "more'n",
    "cannot.", "gonna,", "wannabe", "cannots",
]  # fmt: skip
HYPHENS = [
    "t-shirt", "well-known", "a-b-c", "x-ray,", "-a", "a-", "a--b", "a---b", "a-----b", "a\u2013b",
    "a\u2014b", "a\u2015b", "a\u2010b", "a\u2011b", "wi\xadfi", "\xada", "\xad", "re-\xado", "pro-",
    "anti-war", "-", "--", "---", "----", "-----", "\u2013", "\u2014", "3-d", "a-b.,", "and/or",
    "his/her/their", "a/b/c/d", "w/", "w/o", "c/o", "//", "a_b", "_a_", "__", "",
]  # fmt: skip
DOTS = [
    ". . .", ". . . .", "\u2026 .",
    "...", "..", "....", ".....", "......", "\u2026", "\u2026\u2026", ".", ".", ".", ".", ".", "..",
    "a...b", "one...two", "a\u2026b", ".,.", ",.", "?!", "!?", "!!!", "???", "...", ".", "hi!!!",
    "what?!", "a!b", "a?b", ";", "::", ",,", "\xbf", "\xa1",
]  # fmt: skip
SYMBOLS = [
    "&", "&&", "&amp;", "AT&T", "R&B", "r&b", "A&amp;B", "B&B.,", "C++", "c#", "C##", "F#", "+", "++",
    "=", "==", "*", "**", "***", "~", "^", "|", "||", "\\", "\\\\", "/", "@", "#", "$", "$$", "%",
    "\u2122", "\xae", "\xa9", "\u2022", "\u2192", "\u2605", "\u2665", "\xa7", "\xb6", "&nbsp;",
    "&mdash;", "&eacute;", "caf&eacute;", "&copy;", "&#39;", ":)", ":-)", ";)", "=)", ":D", ":P", ":(",
    ">:(", "^_^", "-_-", "(^_^)", "o_o", "S&P-500", "S&Ls", "Cap'n", "c'est",
]  # fmt: skip
SCRIPTS = [
    "caf\xe9", "cafe\u0301", "na\xefve", "\xdcBER", "\u0130stanbul", "ISPARTA", "\u0131i", "stra\xdfe",
    "STRASSE", "\u1e9e", "\u0141\xd3D\u0179", "\u041f\u0440\u0438\u0432\u0435\u0442",
    "\u041c\u0418\u0420", "\u0395\u03bb\u03bb\u03ac\u03b4\u03b1", "\u039f\u0394\u039f\u03a3",
    "\u0391\u03a3-\u0392\u03a3", "\u03a3", "\u4e2d\u6587\u5b57", "\u65e5\u672c\u8a9e",
    "\ud55c\uad6d\uc5b4", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u0645\u0631\u062d\u0628\u0627\u060c", "\u0e44\u0e17\u0e22",
    "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0939\u093f\u0928\u094d\u0926\u0940\u0964",
    "\u05e2\u05d1\u05e8\u05d9\u05ea", "\U0001f600", "\U0001f44d\U0001f3fd",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u263a", "\u2764\ufe0f",
    "a\U0001f600b", "\u0301x", "\ufb01", "\uff21\uff42", "\uff57\uff4f\uff52\uff44\u3002", "\ua66e",
    "\u1885",
]  # fmt: skip
SPACES = [
    " ", " ", " ", " ", "  ", "\x09", "\xa0", "\u2003", "\u3000", "\u200b", "\ufeff", " \xa0", "\u202f",
    "\x01", "\x7f", "",
]  # fmt: skip
KINDS = [
    WORDS, WORDS, ABBREVIATIONS, NUMBERS, ADDRESSES, QUOTES, BRACKETS, CLITICS, ASSIMILATIONS, HYPHENS, DOTS,
    SYMBOLS, SCRIPTS,
]  # fmt: skip


def adversarial_lines(count: int, seed: int) -> list[str]:
    """``count`` lines without line separators, the same for the same seed."""
    chance = random.Random(seed)
    makers: list[Callable[[random.Random], str]] = [_sentence, _sentence, _glued, _characters, _run, _unicode]
    return [chance.choice(makers)(chance) if chance.random() > 0.01 else "" for _ in range(count)]


def _piece(chance: random.Random) -> str:
    piece = chance.choice(chance.choice(KINDS))
    return chance.choice([piece] * 6 + [piece.upper(), piece.lower(), piece.title()])


def _sentence(chance: random.Random) -> str:
    pieces = [_piece(chance) + chance.choice(SPACES) for _ in range(chance.randint(1, 9))]
    return "".join(pieces) + chance.choice(["", "", ".", " .", "!", "...", ABBREVIATIONS[0]])


def _glued(chance: random.Random) -> str:
    return "".join(
        _piece(chance) + chance.choice(["", "", "-", ".", "'", "/", ","]) for _ in range(chance.randint(2, 4))
    )


def _characters(chance: random.Random) -> str:
    alphabet = (
        "aAnNtTsSdM05 .,;:!?'\"`-_/\\&<>()[]{}@#$%^*+=~|\u00a0\u00ad\u2019\u2018\u201c\u201d\u2013\u2026"
        "\u00e9\u00bd\u00b2\u20ac\u00a3\u2002\t"
    )
    return "".join(chance.choice(alphabet) for _ in range(chance.randint(1, 8)))


def _run(chance: random.Random) -> str:
    return " ".join(chance.choice(".-!?*#@_='`\"~^+&/|\\<>()$%,;:") * chance.randint(1, 12) for _ in range(3))


def _unicode(chance: random.Random) -> str:
    ranges = [
        (0x20, 0x7E),
        (0xA0, 0x24F),
        (0x2010, 0x2027),
        (0x370, 0x6FF),
        (0x900, 0xEFF),
        (0x3001, 0xD7FF),
        (0x1F300, 0x1FAFF),
    ]
    text = "".join(chr(chance.randint(*chance.choice(ranges))) for _ in range(chance.randint(1, 10)))
    # Which sigma is final beside marks of another script is a known difference.
    return text.replace("\u03a3", "\u03c3")
