"""Reference: the format as LLaMA-Factory has it (reference, section 4); there are no golden strings for it."""

import ftk_template_olmo
from ftk import Message

(SPEC,) = ftk_template_olmo.ftk_chat_templates()
TURNS = [
    Message("system", "Be. "),
    Message("user", "Hi"),
    Message("assistant", "Ho"),
    Message("user", "Ha"),
    Message("assistant", "He"),
]


def test_a_conversation_is_written_after_the_end_token_and_ends_with_it(make_renderer):
    made = make_renderer(SPEC, None, "<|endoftext|>")
    (row,) = made.render(TURNS)
    assert [one[:2] for one in row] == [
        ("<|endoftext|>Be. <|user|>\nHi<|assistant|>\n", False),
        ("Ho<|endoftext|>", True),
        ("<|user|>\nHa<|assistant|>\n", False),
        ("He<|endoftext|>", True),
    ]
    assert made.prompt_text(TURNS[:4]) == "".join(one.text for one in row[:3])
    assert made.stop == ("<|endoftext|>",)
