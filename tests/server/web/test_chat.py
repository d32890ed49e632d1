"""What a person does with the page in a real browser, against a real server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.server.running import Server
from tests.server.web.browsing import (
    answer_of,
    ask,
    ask_long,
    delta,
    expect,
    kept,
    opened,
    said,
    setting,
    settle,
    stop,
    streamed,
)


def test_a_conversation_is_what_the_official_client_gets(page: Any, demo: Server) -> None:
    setting(page, "temperature", "0")
    first, second = "Who is the baker of Saltwhistle?", "Tell me about Bruno."
    ask(page, first)
    settle(page)
    whole = answer_of(demo, first)
    ask(page, second)
    settle(page)
    then = answer_of(demo, first, whole.choices[0].message.content, second)
    assert said(page) == [first, whole.choices[0].message.content, second, then.choices[0].message.content]
    stats = page.locator(".message.assistant .stats").last.inner_text()
    tokens = then.usage.completion_tokens
    assert re.fullmatch(rf"{tokens} tokens · [\d,.]+ tokens/s · first after [\d.]+ m?s · demo", stats)
    assert page.locator("#context-label").inner_text() == f"{then.usage.total_tokens} of 2,560 tokens"
    assert page.locator("#conversations .open").all_inner_texts() == [first]
    draft = "Which pet does Bruno have?"
    turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant") * 2, said(page), strict=True)]
    counted = demo.post("/tokenize", {"messages": [*turns, {"role": "user", "content": draft}]}).json()["count"]
    page.fill("#text", draft)
    expect(page.locator("#context-label")).to_have_text(f"{counted} of 2,560 tokens with this draft")


def test_editing_and_asking_again_add_branches_that_arrows_and_reloading_keep(page: Any) -> None:
    ask(page, "Tell me about Ada.")
    settle(page)
    page.get_by_role("button", name="Answer again").click()
    settle(page)
    again = page.locator(".message.assistant .branches")
    expect(again).to_have_text("2/2")
    for _ in range(2):
        page.locator(".message.user").hover()
        page.get_by_role("button", name="Edit message").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".bubble")).to_have_text("Tell me about Ada.")
    page.get_by_role("button", name="Edit message").click()
    page.get_by_role("textbox", name="Edit message").fill("Tell me about Hugo.")
    page.keyboard.press("Enter")
    settle(page)
    edited = said(page)
    assert edited[0] == "Tell me about Hugo." and "Hugo" in edited[1]
    expect(page.locator(".branches")).to_have_text("2/2")
    page.get_by_role("button", name="Earlier version").click()
    assert said(page)[0] == "Tell me about Ada."
    expect(page.locator(".branches")).to_have_text(["1/2", "2/2"])
    page.locator(".message.assistant").get_by_role("button", name="Earlier version").click()
    expect(page.locator(".branches")).to_have_text(["1/2", "1/2"])
    before = said(page)
    page.reload()
    expect(page.locator(".branches")).to_have_count(2)
    assert said(page) == before
    expect(page.locator(".branches")).to_have_text(["1/2", "1/2"])
    page.locator(".message.user").get_by_role("button", name="Later version").click()
    assert said(page) == edited


def test_stop_ends_the_request_and_continue_goes_on_with_it(context: Any, endless: Server) -> None:
    page = opened(context, endless)
    ask_long(page)
    stop(page)
    endless.until_idle(30)
    (begun,) = kept(page, "stopped")
    setting(page, "max_tokens", "3")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Continue").click()
    assert sent.value.post_data_json["messages"][-1]["role"] == "assistant"
    expect(page.locator(".notice")).to_contain_text("The limit of tokens ended this answer.")
    (longer,) = kept(page, "done")
    assert longer["content"].startswith(begun["content"])
    assert longer["stats"]["completion"] == begun["stats"]["completion"] + 3


def test_an_answer_that_was_cut_goes_on_as_if_it_had_not_been(page: Any, demo: Server) -> None:
    question = "Tell me about Bruno."
    whole = answer_of(demo, question)
    setting(page, "max_tokens", "6")
    ask(page, question)
    expect(page.locator(".notice")).to_contain_text("The limit of tokens ended this answer.")
    assert whole.choices[0].message.content.startswith(said(page)[1] + " ")
    setting(page, "max_tokens", "")
    page.get_by_role("button", name="Continue").click()
    settle(page)
    assert said(page) == [question, whole.choices[0].message.content]
    expect(page.locator(".message.assistant .stats")).to_contain_text(f"{whole.usage.completion_tokens} tokens")
    expect(page.locator("#context-label")).to_have_text(f"{whole.usage.total_tokens} of 2,560 tokens")


def test_settings_are_sent_and_what_is_out_of_range_is_not(page: Any) -> None:
    page.get_by_role("button", name="Settings", exact=True).click()
    given = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.05, "max_tokens": 2, "seed": 11}
    given |= {"presence_penalty": 0.5, "frequency_penalty": -0.5, "repetition_penalty": 1.1}
    for name, value in given.items():
        page.fill(f"#set-{name}", str(value))
    page.fill("#system", "You are terse.")
    with page.expect_request("**/v1/chat/completions") as sent:
        ask(page, "Who is the baker?")
    body = sent.value.post_data_json
    assert {name: body[name] for name in given} == given
    assert body["messages"][0] == {"role": "system", "content": "You are terse."}
    assert (body["model"], body["stream"]) == ("demo", True)
    settle(page)
    expect(page.locator(".notice")).to_contain_text("The limit of tokens")
    wrong = {"temperature": "7", "top_p": "0", "top_k": "1.5", "seed": "9007199254740993", "presence_penalty": "-3"}
    for name, value in wrong.items():
        page.fill(f"#set-{name}", value)
        expect(page.locator(f"#help-{name}")).to_contain_text("Not used: a")
    expect(page.locator("#help-seed")).to_have_text("Not used: a whole number from 0 to 9,007,199,254,740,991")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Answer again").click()
    assert not wrong.keys() & sent.value.post_data_json.keys()
    settle(page)
    page.get_by_role("button", name="Use the model's defaults").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Answer again").click()
    assert set(sent.value.post_data_json) == {"model", "messages", "stream", "stream_options"}
    settle(page)


def test_probabilities_of_tokens_appear_on_hover_and_by_key(page: Any) -> None:
    setting(page, "probabilities", "3")
    ask(page, "Who is the baker of Saltwhistle?")
    settle(page)
    text = said(page)[1]
    page.get_by_role("button", name="Token probabilities").click()
    tokens = page.locator(".token")
    assert "".join(tokens.all_inner_texts()).startswith(text)
    tokens.nth(1).hover()
    expect(page.locator(".card")).to_be_visible()
    assert page.locator(".card .row").count() in (3, 4)
    shares = [float(found) for found in re.findall(r"([\d.]+) %", page.locator(".card").inner_text())]
    assert 0 < sum(shares) <= 100.5
    page.locator(".tokens").focus()
    expect(page.locator(".tokens")).to_be_focused()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card")).to_be_visible()
    expect(page.locator(".token.current")).to_have_count(1)


def test_what_is_exported_can_be_deleted_and_imported_again(page: Any, tmp_path: Path) -> None:
    ask(page, "Tell me about Mina.")
    settle(page)
    page.get_by_role("button", name="Answer again").click()
    settle(page)
    before = said(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "out.json")
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#conversations li[data-id]").hover()
    page.get_by_role("button", name="Delete Tell me about Mina.").click()
    expect(page.locator("#conversations .open")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    page.set_input_files("#file", tmp_path / "out.json")
    expect(page.locator("#conversations .open")).to_have_text(["Tell me about Mina."])
    assert said(page) == before
    expect(page.locator(".branches")).to_have_text("2/2")


def test_conversations_are_found_renamed_and_switched(page: Any) -> None:
    for name in ("Ada", "Hugo"):
        page.keyboard.press("Control+Shift+O")
        ask(page, f"Tell me about {name}.")
        settle(page)
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("ada")
    expect(page.locator("#conversations .open")).to_have_text(["Tell me about Ada."])
    page.keyboard.press("Enter")
    expect(page.locator(".bubble")).to_have_text("Tell me about Ada.")
    page.locator("#conversations li[data-id]").hover()
    page.get_by_role("button", name="Rename Tell me about Ada.").click()
    expect(page.get_by_role("textbox", name="Title")).to_be_focused()
    page.keyboard.type("The keeper")
    page.keyboard.press("Enter")
    page.fill("#search", "")
    expect(page.locator("#conversations .open")).to_have_text(
        ["Tell me about Hugo.", "The keeper"], use_inner_text=True
    )


WEATHER = {"name": "get_weather", "description": "Get the weather of a city."}
WEATHER |= {"parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


def test_a_tool_is_called_and_the_reader_answers_for_it(page: Any) -> None:
    setting(page, "temperature", "0")
    page.get_by_text("Tools of this chat").click()
    page.fill("#chat-tools", "[{]")
    ask(page, "What is the weather in Paris?")
    expect(page.locator(".notice")).to_contain_text("The tools of this chat are not JSON")
    page.fill("#chat-tools", json.dumps([{"type": "function", "function": WEATHER}]))
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".call summary")).to_have_text("get_weather")
    expect(page.locator(".call pre")).to_have_text('{\n  "city": "Paris"\n}')
    page.get_by_role("textbox", name="Result of get_weather").fill('{"temperature": 21, "sky": "sunny"}')
    page.get_by_role("button", name="Send result").click()
    expect(page.locator(".message.assistant .content").last).to_have_text("In Paris it is 21 degrees and sunny.")


def test_an_answer_goes_on_while_another_conversation_is_read(context: Any, endless: Server) -> None:
    page = opened(context, endless)
    setting(page, "max_tokens", "1500")
    page.fill("#system", "Of the first.")
    ask(page, "Go on and on.")
    expect(page.locator(".message.assistant .stats")).to_contain_text("tokens/s")
    page.locator("#system").focus()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#system")).to_have_value("")
    expect(page.locator("#empty")).to_be_visible()
    expect(page.locator("#context-label")).to_have_text("0 of 65,536 tokens")
    page.locator("#conversations .open").hover()
    page.mouse.down()
    kept(page, "done")
    page.mouse.up()
    expect(page.locator(".message.assistant .stats")).to_contain_text("1,500 tokens")
    expect(page.locator("#system")).to_have_value("Of the first.")


def test_thoughts_of_a_model_that_thinks(context: Any, thinking_server: Server) -> None:
    page = opened(context, thinking_server)
    setting(page, "temperature", "0")
    setting(page, "max_tokens", "20")
    ask(page, "What?")
    settle(page)
    page.locator(".thoughts summary").click()
    expect(page.locator(".thoughts .markdown")).not_to_be_empty()
    assert said(page)[1] == ""
    page.get_by_label("Thinking").select_option("off")
    page.get_by_role("button", name="Answer again").click()
    settle(page)
    expect(page.locator(".thoughts")).to_be_hidden()
    assert said(page)[1]


def test_thoughts_are_folded_and_calls_are_shown(page: Any) -> None:
    """In DeepSeek's and OpenAI's own words: reasoning_content and tool_calls, in pieces."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": text}} for text in ('{"city": ', '"Paris"}')]
    events = [delta(reasoning_content="It is "), delta(reasoning_content="**easy**."), delta(content="I will look.")]
    events += [delta(tool_calls=[call]), *(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls")]
    wire = streamed(*events, done=True)
    page.route("**/v1/chat/completions", lambda route: route.fulfill(body=wire, content_type="text/event-stream"))
    ask(page, "Weather?")
    expect(page.locator(".message.assistant")).to_have_attribute("data-status", "done")
    thoughts = page.locator(".thoughts")
    expect(thoughts.locator("div")).to_be_hidden()
    thoughts.locator("summary").click()
    expect(thoughts.locator("strong")).to_have_text("easy")
    expect(page.locator(".call summary")).to_have_text("get_weather")
    expect(page.locator(".call pre")).to_have_text('{\n  "city": "Paris"\n}')
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("textbox", name="Result of get_weather").fill("sunny")
        page.get_by_role("button", name="Send result").click()
    said, result = sent.value.post_data_json["messages"][-2:]
    assert said["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert said["reasoning_content"] == "It is **easy**."
    assert result == {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
    settle(page)


def test_the_engine_page_shows_what_the_metrics_say(context: Any, endless: Server) -> None:
    page = opened(context, endless)
    ask_long(page)
    page.get_by_role("link", name="Engine").click()
    expect(page.locator(".facts")).to_contain_text("ready")
    expect(page.locator(".facts")).to_contain_text("context 65,536 tokens")
    requests = page.locator(".chart", has_text="Requests").locator("strong").first
    expect(requests).to_have_text("1")
    page.get_by_role("link", name="Chat").click()
    stop(page)
    page.get_by_role("link", name="Engine").click()
    expect(requests).to_have_text("0")
    endless.until_idle(30)
    page.get_by_text("All metrics").click()
    row = page.locator("tr", has_text="hexad:generation_tokens_total")
    expect(row.locator("td").last).to_have_text(f"{endless.metrics()['hexad:generation_tokens_total']:,.0f}")
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#engine-view")).to_be_hidden()
    held: list[Any] = []
    page.route("**/health", lambda route: held.append(route))
    with page.expect_request("**/health"):
        page.get_by_role("link", name="Engine").click()
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#engine-view")).to_be_hidden()
    polled = "entry => entry.name.endsWith('/metrics') && entry.startTime > left"
    page.evaluate("left = performance.now()")
    held[0].continue_()
    page.wait_for_timeout(1500)
    assert page.evaluate(f"performance.getEntriesByType('resource').filter({polled})") == []
