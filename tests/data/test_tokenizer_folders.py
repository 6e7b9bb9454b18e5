"""Tokenizer files in and out: ids of AutoTokenizer, for single texts, pairs and masks."""

import io
import json

import pytest
from conftest import sentences
from test_tokenizers import ODD, VOCABULARIES, differing
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from bert_jax.config import InputError, TokenizerConfig
from bert_jax.data import tokenizer_folders, tokenizer_json, tokenizers

WORDS = ["the", "qu", "##ick", "brown", "fox", "##es", "cafe", "café", "The", "中", "文", "中文", "[", "]", "mask", "."]
TEXTS = ["The quick brown foxes.", "café 中文 the", "", "<ent>the New York [x]", "a\u0300 b"]
MASKED = ["The [MASK] watches a [MASK].", "[MASK]", "  [MASK]  bird ", "watch[MASK]", "[MASK]es", "a\t[MASK]\u00a0dog"]
# Of these, tokenizers' normalisation by charsmap makes something else: several marks on a letter.
DIFFERENT = {ODD[0], ODD[10]}


def token(content: str, **changes) -> dict:
    fields = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=False)
    return {"content": content, **fields, **changes}


def saved(tokenizer, folder):
    """The folder, with AutoTokenizer's reading of it."""
    folder.mkdir(exist_ok=True)
    tokenizer_folders.write(tokenizer, folder, 512)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return AutoTokenizer.from_pretrained(folder)


def assert_same(tokenizer, theirs, texts, masked=()) -> None:
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert differing(texts, tokenizer.encode(texts), expected) == []
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in masked]
    assert differing(masked, [tokenizer.encode_masked(text) for text in masked], expected) == []
    pair, special = theirs(texts[0], texts[1]), tokenizer.special_ids
    first, second = ([*ids, special["[SEP]"]] for ids in tokenizer.encode(texts[:2]))
    assert pair["input_ids"] == [special["[CLS]"], *first, *second]
    assert pair["token_type_ids"] == [0] * (1 + len(first)) + [1] * len(second)
    assert len(theirs) == tokenizer.vocab_size and theirs.model_max_length == 512
    names = ("pad", "unk", "cls", "sep", "mask")
    assert [getattr(theirs, f"{name}_token_id") for name in names] == [special[f"[{n.upper()}]"] for n in names]


@pytest.mark.parametrize(
    "options",
    [
        dict(lowercase=True),
        dict(lowercase=False),
        dict(lowercase=True, strip_accents=False),
        dict(lowercase=False, strip_accents=True, split_chinese=False),
        dict(lowercase=True, added=[token("<ent>", special=True), token("New York", lstrip=True), token("fox")]),
    ],
)
def test_wordpiece_there_and_back(tmp_path, options):
    tokenizer = tokenizers.WordPiece([*tokenizers.SPECIAL, *WORDS], **options)
    assert_same(tokenizer, saved(tokenizer, tmp_path / "folder"), TEXTS, MASKED)
    again = tokenizer_folders.read(tmp_path / "folder")
    assert tokenizers.fingerprint(again) == tokenizers.fingerprint(tokenizer)
    assert tokenizers.fingerprint(tokenizers.from_dict(again.to_dict())) == tokenizers.fingerprint(tokenizer)
    for name in ("tokenizer.json", "vocab.txt"):  # Either is enough.
        content = (tmp_path / "folder" / name).read_bytes()
        (tmp_path / "folder" / name).unlink()
        assert tokenizer_folders.read(tmp_path / "folder").encode(TEXTS) == tokenizer.encode(TEXTS)
        (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "folder/tokenizer_config.json").unlink()
    unsaid = {"lowercase": True, "strip_accents": None, "split_chinese": True}
    if tokenizer.options == unsaid:
        assert tokenizer_folders.read(tmp_path / "folder").encode(TEXTS) == tokenizer.encode(TEXTS)
    else:  # AutoTokenizer takes those for unsaid options, tokenizer.json has others.
        with pytest.raises(InputError, match=r"its normalizer\.\w+ is \w+, but BertTokenizer's \w+.*; say"):
            tokenizer_folders.read(tmp_path / "folder")


def test_files_of_old_versions(tmp_path):
    """vocab.txt and added_tokens.json alone; ids behind the vocabulary."""
    (tmp_path / "vocab.txt").write_text("\n".join([*tokenizers.SPECIAL, *WORDS]) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<b>": 22, "<a>": 21}))
    tokenizer = tokenizer_folders.read(tmp_path)
    assert tokenizer.vocab_size == 23 and tokenizer.pieces()[21:] == ["<a>", "<b>"]
    texts = ["The <b>quick<a> Café", "<a> fox"]
    assert tokenizer.encode(texts) == AutoTokenizer.from_pretrained(tmp_path)(texts, add_special_tokens=False).input_ids


@pytest.mark.parametrize(
    ("name", "extra", "lowercase"),
    [
        ("uncased_L-2", "Cap", True),
        ("multi_cased_L-2", "low", False),
        ("multilingual_L-12_H-768_A-12", "Cap", True),
        ("chinese_L-12_H-768_A-12", "<S>", True),
        ("chinese_wwm_L-12_H-768_A-12", "<S>", True),
        ("other", "low", True),
        ("other", "Cap", False),
    ],
)
def test_case_of_folders_that_do_not_say(tmp_path, name, extra, lowercase):
    (tmp_path / name).mkdir()
    (tmp_path / name / "vocab.txt").write_text("\n".join([*tokenizers.SPECIAL, extra]) + "\n")
    assert tokenizer_folders.read(tmp_path / name).options["lowercase"] is lowercase


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "tokenizer_config.json",
            {"tokenizer_class": "BertJapaneseTokenizer"},
            "BertJapaneseTokenizer splits texts in P",
        ),
        ("config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "BertJapaneseTokenizer splits texts in P"),
        ("special_tokens_map.json", {"pad_token": {"content": "<pad>"}}, "lacks <pad>"),
        ("tokenizer_config.json", {"do_lower_case": "true"}, r'do_lower_case is "true"; only true or false'),
        ("tokenizer_config.json", {"do_basic_tokenize": False}, "do_basic_tokenize is false"),
        ("tokenizer_config.json", {"never_split": ["a"]}, "never_split"),
        ("tokenizer_config.json", {"padding_side": "left"}, "padding_side"),
        ("tokenizer_config.json", {"sep_token": None}, "sep_token is empty"),
        (
            "tokenizer_config.json",
            {"additional_special_tokens": ["a"], "extra_special_tokens": ["b"]},
            "twice, not alike",
        ),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B", None]}}, "auto_map"),
        ("tokenizer.json", {"padding": {"direction": "Left"}}, "padding.direction"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "pre_tokenizer.type is .Whitespace"),
        ("tokenizer.json", {"normalizer": None}, "normalizer.type is null"),
        ("tokenizer.json", {"post_processor": None}, "post_processor makes 'A'"),
        ("tokenizer.json", {"model": {"type": "BPE", "vocab": {}}}, "model.type is .BPE"),
        ("tokenizer.json", {"model": {"vocab": {"[PAD]": 0, "a": 2}}, "added_tokens": []}, r"lacks \[UNK\]"),
        ("tokenizer.json", {"model": 3}, "damaged"),
        ("added_tokens.json", {"<b>": 30}, "'<b>' is said to have id 30, but has"),
    ],
)
def test_other_tokenizers_are_refused(tmp_path, file, change, message):
    tokenizer_folders.write(tokenizers.WordPiece([*tokenizers.SPECIAL, *WORDS], True), tmp_path, 512)
    values = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del values["added_tokens_decoder"], values["tokenizer_class"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(values))
    values = json.loads((tmp_path / file).read_text()) if (tmp_path / file).exists() else {}
    (tmp_path / file).write_text(json.dumps(values | change))
    with pytest.raises(InputError, match=message) as error:
        tokenizer_folders.read(tmp_path)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_trained_sentencepiece_model(tmp_path, corpus, lowercase):
    config = TokenizerConfig(kind="sentencepiece", vocab_size=120, lowercase=lowercase)
    tokenizer = tokenizers.train(corpus.read_text().split("\n"), config)
    texts = [*sentences(200, 3), *(text for text in ODD if text not in DIFFERENT)]
    assert_same(tokenizer, saved(tokenizer, tmp_path / "folder"), texts, MASKED)
    assert tokenizers.fingerprint(tokenizer_folders.read(tmp_path / "folder")) == tokenizers.fingerprint(tokenizer)


@pytest.mark.parametrize("options", [dict(model_type="bpe"), dict(model_type="unigram", byte_fallback=True)])
def test_sentencepiece_models_of_others(tmp_path, corpus, options):
    import sentencepiece

    model = io.BytesIO()
    lines, size = iter(corpus.read_text().split("\n")), 400 if options.get("byte_fallback") else 90
    more = dict(vocab_size=size, hard_vocab_limit=False, user_defined_symbols=["<ent>"], minloglevel=2)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **more, **options)
    tokenizer = tokenizers.SentencePiece(model.getvalue())
    assert_same(tokenizer, saved(tokenizer, tmp_path / "folder"), [*sentences(50, 3), "Ж the dog<ent> 中"])


@pytest.mark.parametrize(("name", "lowercase"), VOCABULARIES)
def test_released_vocabularies_on_real_text(tmp_path, real_data, name, lowercase):
    tokenizer = tokenizers.load(str(real_data / f"vocab/{name}-vocab.txt"), TokenizerConfig(lowercase=lowercase))
    english = (real_data / "corpus/wiki_en.txt").read_text()[:1_000_000].split("\n")
    chinese = (real_data / "corpus/wiki_zh.txt").read_text()[:200_000].split("\n")
    masked = [text.replace(" the ", " [MASK] ") for text in english[:200]]
    assert_same(tokenizer, saved(tokenizer, tmp_path / "folder"), [*english, *chinese, *ODD], masked)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("characters", [1_000_000, pytest.param(4_000_000, marks=pytest.mark.long)])
def test_sentencepiece_on_real_text(tmp_path, real_data, lowercase, characters):
    english = (real_data / "corpus/wiki_en.txt").read_text()[:characters].split("\n")
    chinese = (real_data / "corpus/wiki_zh.txt").read_text()[:600_000].split("\n")
    config = TokenizerConfig(kind="sentencepiece", vocab_size=8000, lowercase=lowercase)
    tokenizer = tokenizers.train(english[: len(english) // 2] + chinese[: len(chinese) // 2], config)
    masked = [text.replace(" the ", " [MASK] ").replace("ing ", "[MASK] ") for text in english[:500]]
    texts = [*english, *chinese, *(text for text in ODD if text not in DIFFERENT)]
    assert_same(tokenizer, saved(tokenizer, tmp_path / "folder"), texts, masked)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spiece.model"])
@pytest.mark.parametrize("kind", [None, "XLMRobertaTokenizer"])
def test_a_sentencepiece_file_alone_is_read_only_where_its_ids_are_the_models(tmp_path, corpus, name, kind):
    import sentencepiece

    own = tokenizers.train(corpus.read_text().split("\n"), TokenizerConfig(kind="sentencepiece", vocab_size=120))
    model = io.BytesIO()
    lines = iter(corpus.read_text().split("\n"))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, vocab_size=70, minloglevel=2)
    (tmp_path / "config.json").write_text(json.dumps({"tokenizer_class": kind}))
    for content in (own.model, model.getvalue()):
        (tmp_path / name).write_bytes(content)
        if (content, name, kind) == (own.model, "spiece.model", None):
            assert tokenizer_folders.read(tmp_path).to_dict() == own.to_dict()
        else:
            with pytest.raises(InputError, match=r"tokenizer.json.*AutoTokenizer.from_pretrained\(FOLDER\)"):
                tokenizer_folders.read(tmp_path)


def test_weights_are_read_without_a_tokenizer_that_is_refused(tmp_path, capsys):
    import numpy as np
    import torch
    import transformers

    import bert_jax
    from bert_jax.cli.main import main

    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = transformers.BertModel(transformers.BertConfig(**sizes, vocab_size=20)).eval()
    model.save_pretrained(tmp_path / "japanese")
    (tmp_path / "japanese/vocab.txt").write_text("\n".join([*tokenizers.SPECIAL, *WORDS[:15]]))
    (tmp_path / "japanese/tokenizer_config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    command = ["import", str(tmp_path / "japanese"), str(tmp_path / "imported")]
    assert main(command) == 2 and "--head encoder imports the weights" in capsys.readouterr().err
    assert main([*command, "--head", "encoder"]) == 0 and "without its tokenizer: " in capsys.readouterr().out
    expected = model(torch.tensor([[2, 7, 8, 3]])).last_hidden_state.detach().numpy()
    for name in ("japanese", "imported"):
        bert = bert_jax.load(tmp_path / name)
        assert np.allclose(bert.apply([[2, 7, 8, 3]])[0], expected, atol=1e-5)
        with pytest.raises(InputError, match="BertJapaneseTokenizer splits texts in Python"):
            bert.encode(["今日"])
    assert main(["export", str(tmp_path / "imported"), str(tmp_path / "exported"), "--format", "hf"]) == 0
    assert "no tokenizer is written: " in capsys.readouterr().err
    assert not (tmp_path / "exported/vocab.txt").exists()


def test_a_bpe_whose_unknown_token_is_no_piece_is_refused():
    """The library fails at the first text that has a character without a piece."""
    vocab = {"<s>": 0, "</s>": 1, "a": 2}

    def made(**settings) -> tokenizer_json.TokenizerJson:
        backend = Tokenizer(models.BPE(vocab | settings.pop("more", {}), [], **settings))
        backend.post_processor = processors.TemplateProcessing(
            "<s> $A </s>", "<s> $A </s> $B </s>", [("<s>", 0), ("</s>", 1)]
        )
        return tokenizer_json.TokenizerJson(backend.to_str(), {})

    with pytest.raises(InputError, match="its model.unk_token <unk> isn't in its vocabulary"):
        made(unk_token="<unk>")
    assert made().encode(["ab"]) == [[2]]
    every = {piece: 3 + i for i, piece in enumerate(set(pre_tokenizers.ByteLevel.alphabet()) - {"a"})}
    assert made(unk_token="<unk>", more=every).encode(["a"]) == [[2]]
