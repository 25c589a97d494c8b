"""The Penn Treebank tokenisation rules, one table; :mod:`captioner.metrics.ptb.tokenizer` applies them.

Each rule is a pattern, and optionally what must follow it (``ahead``); what follows counts towards the length
of the match but stays in the text. Of all rules that match at a place the longest wins, among equally long
ones the one that stands first. ``{NAME}`` stands for that entry of
:data:`~captioner.metrics.ptb.parts.PARTS`. A literal letter stands for both cases, a letter inside a
class (``[A-Z]``) for itself.
"""

import re
from dataclasses import dataclass
from itertools import product

from captioner.metrics.ptb.parts import PARTS


@dataclass(frozen=True)
class Rule:
    """One rule of the table.

    Attributes:
        name: What the rule recognises.
        pattern: What a match looks like.
        example: A text that holds such a match.
        tokens: The tokens of ``example``, in lower case and without punctuation tokens.
        ahead: What must follow the match.
        becomes: The token to emit instead of the matched text; ``""`` for none.
        keep: How many characters of the match to take; the others are read again. None: all.
    """

    name: str
    pattern: str
    example: str
    tokens: tuple[str, ...]
    ahead: str = ""
    becomes: str | None = None
    keep: int | None = None
    replace: tuple[tuple[str, str], ...] = ()


_SOFT = (("\u00ad", ""),)
# Entities are recognised in any case, but only this one is spelt out in any case.
_AMP = tuple((f"&{''.join(letters)};", "&") for letters in product("aA", "mM", "pP"))
_STRAIGHT = (
    ("\u2019", "'"),
    ("\u0092", "'"),
    ("&apos;", "'"),
    ("\u0091", "`"),
    ("\u2018", "`"),
    ("\u201b", "`"),
)
_BRACKETS = (("(", "-LRB-"), (")", "-RRB-"))
_BLANKS = ((" ", "\u00a0"),)
_FRACTIONS = (("\u00bc", "1/4"), ("\u00bd", "1/2"), ("\u00be", "3/4"), ("\u2153", "1/3"), ("\u2154", "2/3"))
_SIGNS = (
    ("\u00a2", "cents"),
    ("\u00a3", "#"),
    ("\u00a4", "$"),
    ("\u0080", "$"),
    ("\u20a0", "$"),
    ("\u20ac", "$"),
)
_QUOTES = (
    ("&apos;", "'"),
    ("\u0091", "`"),
    ("\u2018", "`"),
    ("\u201b", "`"),
    ("\u2039", "`"),
    ("\u0092", "'"),
    ("\u2019", "'"),
    ("\u203a", "'"),
    ("\u0093", "``"),
    ("\u201c", "``"),
    ("\u00ab", "``"),
    ("\u0094", "''"),
    ("\u201d", "''"),
    ("\u00bb", "''"),
)


def expand(pattern: str) -> str:
    """Return ``pattern`` with every ``{NAME}`` replaced, in brackets, by that entry of ``PARTS``."""
    expanded = re.sub(r"\{([A-Z_]+)\}", lambda name: f"({PARTS[name[1]]})", pattern)
    return expanded if expanded == pattern else expand(expanded)


RULES: tuple[Rule, ...] = (
    # Words that the treebank takes apart
    Rule("cannot", "cannot", "It cannot be", ("it", "can", "not", "be"), keep=3),
    Rule("'twas", "'twas", "'Twas night", ("'t", "was", "night"), keep=2),
    Rule("'tis", "'tis", "'tis a dog", ("'t", "is", "a", "dog"), keep=2),
    Rule("gonna", "gonna|gotta|lemme|gimme|wanna", "gonna gimme", ("gon", "na", "gim", "me"), keep=3),
    # Mark-up
    Rule(
        "tag",
        "{TAG}",
        "<b>cat</b>",
        ("<b>", "cat", "</b>"),
        replace=_BLANKS,
    ),
    Rule(
        "dash",
        r"&(MD|mdash|ndash);|[\u0096\u0097\u2013\u2014\u2015]",
        "cat\u2014dog",
        ("cat", "dog"),
        becomes="--",
    ),
    Rule("ampersand entity", "&amp;", "cats &amp; dogs", ("cats", "&", "dogs"), becomes="&"),
    Rule("punctuation entity", "&(HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);", "&#39; &UR;", ("&#39;", "&ur;")),
    # Words
    Rule("word before 's", "{WORD}", "The dog's", ("the", "dog", "'s"), ahead="{AUX}", replace=_SOFT),
    Rule("word before n't", "{BEFORE_NOT}", "don't", ("do", "n't"), ahead="{NOT}", replace=_SOFT),
    Rule("word", "{WORD}", "caf\u00e9 U.S", ("caf\u00e9", "u.s"), replace=_SOFT),
    Rule(
        "word with apostrophe",
        r"{APOS}n{APOS}?|[lLdDjJ]{APOS}|dunkin{APOS}|somethin{APOS}|ol{APOS}|{APOS}em"
        r"|[A-HJ-XZn]{APOS_LIKE}{ALPHA}{2}{ALPHA}*|{APOS}[2-9]0s|{APOS}till?|{ALPHA}{ALPHA}*[aeiouyAEIOUY]{APOS_LIKE}[aeiouA-Z]{ALPHA}*"
        r"|{APOS}cause|cont{APOS}d\.|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|nor'easter|o{APOS_LIKE}o",
        "rock 'n' roll",
        ("rock", "'n'", "roll"),
    ),
    Rule("y'all", "y{APOS}", "y'all", ("y'", "all"), ahead="{ALPHA}"),
    # Addresses
    Rule(
        "web address",
        r"https?://[^ \t\n\f\r\"<>|(){}]+[^ \t\n\f\r\"<>|.!?(){},-]",
        "see http://a.org/b?c.",
        ("see", "http://a.org/b?c"),
    ),
    Rule(
        "likely web address",
        r"(www\.([^ \t\n\f\r\"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}"
        r"|([^ \t\n\f\r\"`'<>|.!?(){},-_$]+\.)+(com|net|org|edu))"  # ,-_ is a range, in the reference too
        r"(/[^ \t\n\f\r\"<>|()]+[^ \t\n\f\r\"<>|.!?(){},-])?",
        "x+y.com/ab.",
        ("x+y.com/ab",),
    ),
    Rule(
        "e-mail address",
        r"(&lt;|<)?[a-zA-Z0-9][^ \t\n\f\r\"<>|(){}\u00A0]*@({MAIL_HOST}\.)*{MAIL_HOST}(&gt;|>)?",
        "joe.x@a.org.",
        ("joe.x@a.org",),
    ),
    Rule("handle", "@[a-zA-Z_][a-zA-Z_0-9]*", "@cat_1", ("@cat_1",)),
    Rule("hashtag", "#{LETTER}+", "#cat", ("#cat",)),
    # Parts of words that stand alone
    Rule("'s", "{AUX}", "90's", ("90", "'s"), ahead="[^A-Za-z]", replace=_STRAIGHT),
    Rule("n't", "{NOT}", "n't.", ("n't",), ahead="[^A-Za-z]", replace=_STRAIGHT),
    # Numbers
    Rule("date", "{DIGIT}{1,2}[-/]{DIGIT}{1,2}[-/]{DIGIT}{2,4}", "12/25/2014", ("12/25/2014",)),
    Rule("number", r"[-+]?{NUMERAL}", "-1,234.5", ("-1,234.5",), replace=_SOFT),
    Rule(
        "superscript",
        r"[\u207A\u207B\u208A\u208B]?([\u2070\u00B9\u00B2\u00B3\u2074-\u2079]+|[\u2080-\u2089]+)",
        "10\u207b\u00b2",
        ("10", "\u207b\u00b2"),
    ),
    Rule(
        "fraction",
        r"({DIGIT}{1,4}[- \u00A0])?{DIGIT}{1,4}({SLASH}|[\u2044]){DIGIT}{1,4}",
        "1 1/2",
        ("1\u00a01/2",),
        replace=_BLANKS,
    ),
    Rule(
        "fraction character",
        r"[\u00BC\u00BD\u00BE\u2153-\u215E]",
        "1\u00bd",
        ("1", "1/2"),
        replace=_FRACTIONS,
    ),
    Rule(
        "treebank word",
        r"-(RRB|LRB|RCB|LCB|RSB|LSB)-|c\.d\.s|pro-|anti-|S{AMP}P-500|S{AMP}Ls|cap{APOS}n|c{APOS}est",
        "S&Ls",
        ("s&ls",),
        replace=_AMP,
    ),
    Rule("year", "{APOS}[0-9]{2}", "in '99", ("in", "'99"), ahead="{BLANK_OR_END}"),
    Rule(
        "words with slashes",
        r"[A-Za-z0-9]+(-[A-Za-z]+){0,2}({SLASH}[A-Za-z0-9]+(-[A-Za-z]+){0,2}){1,2}",
        "his/her",
        ("his/her",),
    ),
    Rule("currency", r"[A-Z]*\$|#", "US$5", ("us$", "5")),
    Rule(
        "currency sign",
        r"[\u00A2\u00A3\u00A4\u00A5\u0080\u20A0\u20AC\u060B\u0E3F\u20A4\uFFE0\uFFE1\uFFE5\uFFE6]",
        "\u20ac5",
        ("$", "5"),
        replace=_SIGNS,
    ),
    # Abbreviations
    Rule(
        "letter at the end of a sentence",
        r"[A-Za-z]\.",
        "Plan B. The cat",
        ("plan", "b", "the", "cat"),
        ahead="{BLANK_OR_END}+{OPENER}{BLANK_OR_END}",
        keep=1,
    ),
    Rule("abbreviation before anything", r"{LAST_WORD}\.", "etc.x", ("etc.", "x"), ahead=r"[\s\S]{2}"),
    Rule(
        "abbreviation",
        r"({LAST_WORD}|{TITLE}|{OTHER_ABBREVIATION}|{INITIALS}|[A-Za-z])\.",
        "Mr. X. of St. Ives",
        ("mr.", "x.", "of", "st.", "ives"),
    ),
    Rule(
        "abbreviation before a number",
        r"(figs?|prop|nos?|art|pp?|op|ca)\.",
        "No. 5",
        ("no.", "5"),
        ahead="{BLANK_OR_END}?{DIGIT}",
    ),
    Rule(
        "file name",
        r"({LETTER}|{DIGIT})+(\.({LETTER}|{DIGIT})+)*\.{EXTENSION}",
        "1.jpg",
        ("1.jpg",),
        ahead="{BLANK_OR_END}|[.?!,]",
    ),
    Rule("programming language", r"[cCfF]#|c\+\+", "C++", ("c++",)),
    Rule("name with full stop", r"{NAME}\.", "t-shirt., x", ("t-shirt.", "x"), ahead="{IN_SENTENCE}"),
    Rule(
        "hyphenated word with full stop",
        r"{HYPHENATED}\.",
        "U.S.-made., x",
        ("u.s.-made.", "x"),
        ahead="{IN_SENTENCE}",
        replace=_SOFT,
    ),
    Rule(
        "capitals with & or + and full stop",
        r"{CAPITALS}\.",
        "AT&T., x",
        ("at&t.", "x"),
        ahead="{IN_SENTENCE}",
        replace=_AMP,
    ),
    Rule(
        "word with full stop",
        r"{WORD}\.",
        "hi!there., x",
        ("hi!there.", "x"),
        ahead="{IN_SENTENCE}",
        replace=_SOFT,
    ),
    Rule(
        "phone number",
        r"(\([0-9]{2,3}\)[ \u00A0]?|(\+\+?)?([0-9]{2,4}[- \u00A0])?[0-9]{2,4}[- \u00A0])"
        r"[0-9]{3,4}[- \u00A0]?[0-9]{3,5}"
        r"|((\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}",
        "call 555 123 4567",
        ("call", "555\u00a0123\u00a04567"),
        replace=_BRACKETS + _BLANKS,
    ),
    # Symbols and punctuation
    Rule("double quote", r"\"|&quot;", '"cat"', ("cat",), replace=(('"', "''"), ("&quot;", "''"))),
    Rule("less than", "<|&lt;", "1 &lt; 2", ("1", "<", "2"), becomes="<"),
    Rule("greater than", ">|&gt;", "1 &gt; 2", ("1", ">", "2"), becomes=">"),
    Rule(
        "smiley",
        r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]",
        ":-)",
        (":--rrb-",),
        ahead="[^A-Za-z0-9]",
        replace=_BRACKETS,
    ),
    Rule(
        "Asian smiley",
        r"[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)",
        "^_^",
        ("^_^",),
        replace=_BRACKETS,
    ),
    Rule("curly bracket", r"\{", "{x}", ("-lcb-", "x", "-rcb-"), becomes="-LCB-"),
    Rule("closing curly bracket", r"\}", "{x}", ("-lcb-", "x", "-rcb-"), becomes="-RCB-"),
    Rule("square bracket", r"\[", "[x]", ("-lsb-", "x", "-rsb-"), becomes="-LSB-"),
    Rule("closing square bracket", r"\]", "[x]", ("-lsb-", "x", "-rsb-"), becomes="-RSB-"),
    Rule("round bracket", r"\(", "(x)", ("-lrb-", "x", "-rrb-"), becomes="-LRB-"),
    Rule("closing round bracket", r"\)", "(x)", ("-lrb-", "x", "-rrb-"), becomes="-RRB-"),
    Rule("dash of hyphens", "-{3,4}", "cat---dog", ("cat", "dog"), becomes="--"),
    Rule("hyphens", "-+", "- ----- --", ("-----",)),
    Rule(
        "ellipsis",
        r"\.{3,5}|(\.[ \u00A0]){2,4}\.|[\u0085\u2026]",
        "one . . . two...",
        ("one", "two"),
        becomes="...",
    ),
    Rule("repeated symbol", r"\*+|(\\\*){1,3}|@+|#+|_+", "** ##", ("**", "##")),
    Rule("exclamation or question", r"[?!]+", "what?!", ("what", "?!")),
    Rule("hyphenated word", r"{HYPHENATED}", "t-shirt", ("t-shirt",), replace=_SOFT),
    Rule("hyphenated name", "{NAME}", "O'Neil-x", ("o'neil-x",), replace=_SOFT),
    Rule("capitals with & or +", "{CAPITALS}", "AT&T", ("at&t",), replace=_AMP),
    Rule(
        "quotes",
        r"''|'|&apos;|[`\u0091-\u0094\u2018\u2019\u201A-\u201F\u2039\u203A\u00AB\u00BB]{1,2}",
        "\u2018x\u2019",
        ("x",),
        replace=_QUOTES,
    ),
    Rule("opening quote", "'", "'nuff", ("nuff",), ahead=r"[A-Za-z][^ \t\n\r\u00A0]", becomes="`"),
    Rule("'s inside a word", "{AUX}", "it\u2019sa", ("it", "'s", "a"), replace=_STRAIGHT),
    Rule("double angle", "<<|>>", "<<", ("<<",)),
    Rule("symbol", "{SYMBOL}", "5%", ("5", "%")),
    Rule("blank", "&nbsp;|{BLANK}+", "a \t b", ("a", "b"), becomes=""),
)
