"""The page in a browser: the way of a visitor, and good manners. Screenshots lie in ``artefacts/`` afterwards, to be looked at.

Every test ends with a look at the browser's own log: no request left the machine, and no script failed.
"""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'stylestream[serve]'")
pytest.importorskip("playwright", reason="the browser needs playwright: pip install 'stylestream[dev]'")

from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from stylestream import jobs, list_styles

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARTEFACTS = Path(__file__).parent.parent / "artefacts"
LAMPLIGHT = jobs.BUNDLED_SONG
PATIENCE = 120_000  # ms; a test waits for what happens, however busy the machine

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory, tone):
    spoken = tmp_path_factory.mktemp("microphone") / "spoken.wav"  # what the microphone hears, over and over
    soundfile.write(spoken, tone(4.0, hz=523.25, sample_rate=48000).T, 48000)
    flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--mute-audio"]
    flags += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={spoken}"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """``visit(**context)``: a new visitor's page. Afterwards the log of each is read."""
    ARTEFACTS.mkdir(exist_ok=True)
    contexts: list[BrowserContext] = []
    requested: list[str] = []
    errors: list[str] = []

    def open_page(**options) -> Page:
        usual = {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark", "reduced_motion": "no-preference"}
        context = browser.new_context(**usual | options)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Content Security Policy" in message.text else None)
        page.goto(server.address)
        expect(page.locator(".style")).to_have_count(sum(entry.bundled for entry in list_styles()) + 2)  # and tiny, and drummer
        return page

    expect.set_options(timeout=PATIENCE)
    yield open_page
    for context in contexts:
        context.close()
    assert requested
    assert [url for url in requested if not url.startswith((server.address, "blob:", "data:"))] == []
    assert errors == []


def shot(page: Page, name: str) -> None:
    page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


def choose(page: Page, style: str) -> None:
    page.locator(f".style:has(input[value={style}])").click(position={"x": 40, "y": 40})


def send(page: Page, path: Path) -> None:
    page.set_input_files("#file", path)
    expect(page.locator("#song-info")).to_be_visible()


def loudness_in_the_browser(page: Page) -> float:
    """The loudest bar of what sounds."""
    return page.evaluate("Math.max(...stylestream.player.bars(48))")


def until(page: Page, true: str) -> None:
    """Wait until an expression is true in the page; Playwright's own way needs `eval`, which the page forbids."""
    ends = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(true):
        assert time.monotonic() < ends, true
        page.wait_for_timeout(50)


LEVEL = """async seconds => {
    const { player } = stylestream, data = new Float32Array(player.analyser.fftSize);
    let power = 0, count = 0;
    for (const ends = performance.now() + 1000 * seconds; performance.now() < ends; count++) {
        player.analyser.getFloatTimeDomainData(data);
        power += data.reduce((sum, v) => sum + v * v, 0) / data.length;
        await new Promise((done) => setTimeout(done, 150));
    }
    return 10 * Math.log10(power / count + 1e-12); }"""


def level_db(page: Page, *, start: float, seconds: float = 3.0) -> float:
    """What comes out of the browser for some seconds from a place in the song, dB re full scale."""
    page.evaluate("start => { stylestream.player.seek(start); return stylestream.player.play(); }", start)
    until(page, "stylestream.player.playing && !stylestream.player.waiting")
    page.wait_for_timeout(300)  # the analyser's window is full
    level = page.evaluate(LEVEL, seconds)
    page.evaluate("stylestream.player.pause()")
    return level


def is_painted(page: Page, canvas: str) -> bool:
    """Whether a canvas shows a picture: more than a few colours."""
    count = """id => {
        const c = document.getElementById(id), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        const seen = new Set(); for (let i = 0; i < d.length; i += 404) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]);
        return seen.size }"""
    return page.evaluate(count, canvas) > 40


# ------------------------------------------------------------------------------------------------------------- the way


def test_a_visitor_hears_a_song_in_a_style_while_it_is_made_and_takes_it_home(visit, tmp_path):
    page = visit()
    shot(page, "1-start-dark")
    send(page, LAMPLIGHT)
    expect(page.locator("#song-about")).to_have_text("0:33 · stereo · 44.1 kHz")
    sample = page.get_by_role("button", name="Play a sample of Rock Band")
    sample.click()
    expect(page.locator(".sample.playing")).to_have_count(1)
    choose(page, "rock")
    page.get_by_label("How far to go").fill("0.9")
    page.get_by_label("What it makes up").fill("1.5")
    expect(page.locator("#dream-out")).to_have_text("a little (1.5)")
    page.get_by_role("button", name="Play it as rock band").click()
    expect(page.locator(".sample.playing")).to_have_count(0)
    expect(page.locator("#hear-result")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.wait_for_timeout(1500)
    assert loudness_in_the_browser(page) > 0.2
    shot(page, "2-while-it-is-made-dark")

    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#spec-veil")).to_be_hidden()
    assert is_painted(page, "spec-song")
    assert is_painted(page, "spec-result")
    before = page.evaluate("stylestream.player.position")
    page.keyboard.press("a")
    expect(page.locator("#hear-song")).to_have_attribute("aria-checked", "true")
    page.keyboard.press("b")
    expect(page.locator("#hear-result")).to_have_attribute("aria-checked", "true")
    assert page.evaluate("stylestream.player.position") >= before  # one play head
    shot(page, "3-done-dark")

    with page.expect_download() as download:
        page.get_by_role("link", name="WAV").click()
    assert download.value.suggested_filename == "lamplight-rock.wav"
    made, song = soundfile.info(download.value.path()), soundfile.info(LAMPLIGHT)
    assert (made.frames, made.channels, made.samplerate) == (song.frames, song.channels, song.samplerate)
    y, _ = soundfile.read(download.value.path())
    x, _ = soundfile.read(LAMPLIGHT)
    assert np.abs(y - x).max() > 0.05
    expect(page.locator("#history li")).to_have_count(1)
    expect(page.locator("#history li")).to_contain_text("strength 0.9 · dream 1.5")

    page.get_by_role("slider", name="Stroke").focus()
    page.keyboard.press("Home")
    expect(page.locator("#stroke")).to_have_text("your song")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#stroke")).to_have_text("stroke 1 of 8")
    assert is_painted(page, "canvas")
    page.get_by_role("button", name="Paint again").click()
    for told in ("your song", "stroke 4 of 8", "stroke 8 of 8", "with its texture"):  # all of them, one after the other
        expect(page.locator("#stroke")).to_have_text(told)
    page.get_by_label("Mix").fill("0.5")
    expect(page.get_by_label("Mix")).to_have_attribute("aria-valuetext", "50 percent result")
    levels = []
    for which in ("hear-song", "hear-result"):
        page.locator(f"#{which}").click()
        levels.append(level_db(page, start=8.0))
    assert levels[0] == pytest.approx(levels[1], abs=4)  # over three seconds; over the whole song it is within one
    assert levels[0] > -40


def test_a_real_song_goes_the_same_way(visit, collection):
    songs = sorted((collection / "audio").rglob("*.ogg"), key=lambda path: path.stat().st_size)
    if not songs:
        pytest.skip(f"no audio in {collection}")
    page = visit()
    send(page, songs[0])
    choose(page, "piano")
    page.get_by_role("button", name="Play it as").click()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#go-error")).to_be_hidden()
    with page.expect_download() as download:
        page.get_by_role("link", name="FLAC").click()
    assert soundfile.info(download.value.path()).frames == soundfile.info(songs[0]).frames


def test_a_drummer_is_offered_where_the_style_has_one(visit):
    page = visit()
    page.get_by_role("button", name="Take “Lamplight”").click()
    choose(page, "tiny")
    expect(page.get_by_label("Drummer", exact=True)).to_be_hidden()
    choose(page, "drummer")
    page.get_by_label("Drummer", exact=True).fill("0.5")
    expect(page.locator("#drums-out")).to_have_text("as usual")
    page.get_by_role("button", name="Play it as drummer").click()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#history li")).to_contain_text("drums 0.5")


def test_a_width_is_offered_where_the_style_has_one(visit):
    page = visit()
    page.get_by_role("button", name="Take “Lamplight”").click()
    choose(page, "tiny")
    expect(page.get_by_label("Width", exact=True)).to_be_hidden()
    choose(page, "drummer")
    page.get_by_label("Width", exact=True).fill("1")
    expect(page.locator("#width-out")).to_have_text("as wide as the style")
    page.get_by_role("button", name="Play it as drummer").click()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#history li")).to_contain_text("width 1")
    page.reload()
    expect(page.get_by_label("Width", exact=True)).to_have_value("1")


def test_both_sounds_run_together_to_the_sample(visit):
    """What the browser plays of the song through the player's two tracks is one sound: song minus song is silence."""
    page = visit()
    page.get_by_role("button", name="Take “Lamplight”").click()
    expect(page.locator("#player")).to_be_visible()
    difference = page.evaluate("""async () => {
        const { player } = stylestream, track = player.tracks[0];
        player.load(player.song, [track, track]);
        await player.play();
        player.tracks[1].gain.disconnect();
        const upside = player.context.createGain(); upside.gain.value = -1;  // the second track, turned over
        player.tracks[1].gain.connect(upside).connect(player.master);
        player.setMix(0.5);
        await new Promise((done) => setTimeout(done, 6500));  // over the seam of two parts
        const silent = Math.max(...player.bars(48)), at = player.position;
        upside.gain.value = 1;
        await new Promise((done) => setTimeout(done, 700));
        return [silent, Math.max(...player.bars(48)), at];
    }""")
    assert difference[2] > 4
    assert difference[0] == 0
    assert difference[1] > 0.2


def test_a_song_that_is_cancelled_stops_and_the_next_one_plays(visit, tmp_path, tone):
    soundfile.write(tmp_path / "long.flac", tone(90.0).T, 44100)
    page = visit()
    page.route("**/songs?name=*", lambda route: None)  # it never arrives
    page.set_input_files("#file", tmp_path / "long.flac")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#sending")).to_be_hidden()
    expect(page.locator("#song-error")).to_be_hidden()
    expect(page.get_by_role("button", name="Record")).to_be_visible()
    page.unroute("**/songs?name=*")
    send(page, tmp_path / "long.flac")
    choose(page, "strings")
    page.get_by_role("button", name="Play it as").click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator("#work")).to_be_hidden()
    expect(page.locator("#hear-result")).to_be_disabled()
    expect(page.locator("#go")).to_be_enabled()
    choose(page, "tiny")
    page.get_by_role("button", name="Another song").click()
    page.get_by_role("button", name="Take “Lamplight”").click()
    page.get_by_role("button", name="Play it as tiny").click()
    expect(page.locator("#downloads")).to_be_visible()


def test_what_is_wrong_is_said_beside_what_caused_it(visit, tmp_path):
    page = visit()
    (tmp_path / "diary.txt").write_text("dear diary")
    page.set_input_files("#file", tmp_path / "diary.txt")
    error = page.locator("#song-error")
    expect(error).to_contain_text("'diary.txt' is not a song that can be read")
    assert error.bounding_box()["y"] - page.locator("#drop").bounding_box()["y"] < 400
    shot(page, "4-a-bad-file-dark")
    with (tmp_path / "huge.wav").open("wb") as huge:
        huge.truncate(61_000_000)
    page.set_input_files("#file", tmp_path / "huge.wav")
    expect(error).to_contain_text("“huge.wav” is 61 MB; at most 60 MB are taken here")
    send(page, LAMPLIGHT)
    expect(error).to_be_hidden()


def test_two_visitors_at_once_both_get_their_song(visit, tmp_path, tone):
    pages = [visit(), visit(viewport={"width": 800, "height": 600})]
    for number, page in enumerate(pages):
        soundfile.write(tmp_path / f"song{number}.wav", tone(12.0 + number).T, 44100)
        send(page, tmp_path / f"song{number}.wav")
        choose(page, "strings")
    for page in pages:
        page.get_by_role("button", name="Play it as").click()
    for number, page in enumerate(pages):
        expect(page.locator("#downloads")).to_be_visible()
        expect(page.locator("#history li")).to_have_count(1)  # nobody sees the other's
        with page.expect_download() as download:
            page.get_by_role("link", name="WAV").click()
        assert soundfile.info(download.value.path()).frames == (12 + number) * 44100


def test_seven_songs_at_once_leave_the_page_alive(visit, tmp_path, tone):
    """A browser opens six connections to a server."""
    page = visit()
    soundfile.write(tmp_path / "long.flac", tone(120.0).T, 44100)
    for count in range(1, 8):
        send(page, tmp_path / "long.flac")
        choose(page, "strings")
        page.get_by_role("button", name="Play it as").click()
        expect(page.locator("#history li")).to_have_count(count)
        page.get_by_role("button", name="Another song").click()
    assert page.evaluate("fetch('health', { signal: AbortSignal.timeout(5000) }).then((answer) => answer.status)") == 200
    page.get_by_role("button", name="Cancel long as").first.click()  # the newest, which waits
    expect(page.locator("#history li")).to_have_count(6)
    for job in page.evaluate("JSON.parse(sessionStorage.visit).jobs"):
        httpx.delete(f"{page.url}jobs/{job}")


def test_the_keys_work_after_a_slider_was_moved(visit, tmp_path, tone):
    soundfile.write(tmp_path / "a.wav", tone(6.0).T, 44100)
    page = visit()
    send(page, tmp_path / "a.wav")
    page.get_by_label("Volume").focus()
    page.keyboard.press("ArrowLeft")  # moves the slider, not the song
    assert page.evaluate("stylestream.player.position") == 0
    page.keyboard.press(" ")
    until(page, "stylestream.player.playing")
    page.keyboard.press(" ")
    until(page, "!stylestream.player.playing")
    page.locator("#seek").focus()
    page.keyboard.press("End")
    assert page.evaluate("stylestream.player.position") == pytest.approx(6.0, abs=0.1)
    page.keyboard.press("Home")
    assert page.evaluate("stylestream.player.position") == 0


def test_of_two_songs_the_one_that_was_chosen_last_counts(visit, tmp_path, tone):
    page, held = visit(), []
    for name, seconds in (("first.wav", 2.0), ("second.wav", 3.0)):
        soundfile.write(tmp_path / name, tone(seconds).T, 44100)
    page.route("**/songs?name=first.wav", lambda route: held.append(route))  # it never gets through
    page.set_input_files("#file", tmp_path / "first.wav")
    expect(page.locator("#sending")).to_be_visible()
    page.set_input_files("#file", tmp_path / "second.wav")
    expect(page.locator("#song-name")).to_have_text("second.wav")
    expect(page.locator("#sending")).to_be_hidden()
    page.unroute("**/songs?name=first.wav")
    with contextlib.suppress(Exception):  # it was given up
        held[0].continue_()
    page.wait_for_timeout(300)
    expect(page.locator("#song-name")).to_have_text("second.wav")


def test_a_recording_ends_where_another_song_is_chosen(visit):
    page = visit()
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record")).to_have_text("Stop (0:01)")
    page.get_by_role("button", name="Take “Lamplight”").click()
    expect(page.locator("#song-name")).to_have_text("Lamplight.ogg")
    expect(page.locator("#record")).not_to_have_class(re.compile("recording"))
    page.wait_for_timeout(500)
    expect(page.locator("#song-name")).to_have_text("Lamplight.ogg")


def test_what_the_microphone_hears_is_the_song(visit, server):
    page = visit()
    page.get_by_role("button", name="Record").click()
    expect(page.locator("#record")).to_have_text("Stop (0:02)")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#song-name")).to_have_text("recording.webm")
    assert page.evaluate("stylestream.player.seconds") > 1.5
    heard, sample_rate = soundfile.read(io.BytesIO(httpx.get(page.url + page.evaluate("stylestream.player.tracks[0].url(0)")).content))
    spectrum = np.abs(np.fft.rfft(heard[:, 0] if heard.ndim == 2 else heard))
    assert np.argmax(spectrum) * sample_rate / len(heard) == pytest.approx(523.25, rel=0.02)


def test_the_bars_dance_to_what_sounds(visit, tmp_path, tone):
    """A tone of 440 Hz is highest at the bar of 440 Hz; the picture stands still when nothing sounds."""
    soundfile.write(tmp_path / "a.wav", tone(6.0).T, 44100)
    page = visit()
    send(page, tmp_path / "a.wav")
    lit = """(() => { const c = document.getElementById('visual'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height / 2).data;
        return d.reduce((sum, v, i) => sum + (i % 4 === 3 && v > 0), 0); })()"""  # pixels in the upper half
    assert page.evaluate(lit) == 0
    page.get_by_role("button", name="Play", exact=True).click()
    until(page, "Math.max(...stylestream.player.bars(96)) > 0.3")
    bars = np.array(page.evaluate("[...stylestream.player.bars(96)]"))
    assert 33 * 480 ** (int(bars.argmax()) / 96) <= 440 * 1.07
    assert 33 * 480 ** ((int(bars.argmax()) + 1) / 96) >= 440 / 1.07
    until(page, f"{lit} > 0")
    page.get_by_role("button", name="Pause").click()
    until(page, f"{lit} === 0")


def test_a_reload_loses_nothing_and_what_is_forgotten_is_gone(visit, server, tmp_path, tone):
    page = visit()
    page.get_by_role("button", name="Take “Lamplight”").click()
    choose(page, "tiny")
    page.get_by_label("How far to go").fill("0.7")
    page.get_by_role("button", name="Play it as tiny").click()
    expect(page.locator("#downloads")).to_be_visible()
    page.reload()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#history li")).to_contain_text("strength 0.7")
    expect(page.locator("#hear-result")).to_have_attribute("aria-checked", "true")
    expect(page.locator("input[value=tiny]")).to_be_checked()
    expect(page.get_by_label("How far to go")).to_have_value("0.7")
    result = page.url + page.locator("#get-wav").get_attribute("href")
    assert httpx.get(result).status_code == 200
    page.get_by_role("button", name="Another song").click()
    soundfile.write(tmp_path / "long.flac", tone(90.0).T, 44100)
    send(page, tmp_path / "long.flac")
    choose(page, "strings")
    page.get_by_role("button", name="Play it as").click()
    expect(page.get_by_role("button", name="Cancel long as string quartet")).to_be_visible()
    page.reload()  # in the middle of the work
    expect(page.locator("#history li")).to_have_count(2)
    page.get_by_role("button", name="Cancel long as string quartet").click()
    expect(page.locator("#history li")).to_have_count(1)
    other = visit()
    expect(other.locator("#history-card")).to_be_hidden()  # nobody sees another's visit
    page.get_by_role("button", name="Forget Lamplight as tiny").click()
    expect(page.locator("#history-card")).to_be_hidden()
    assert httpx.get(result).status_code == 404
    page.reload()
    expect(page.locator("#song-name")).to_have_text("long.flac")
    expect(page.locator("#history-card")).to_be_hidden()


def test_a_style_of_ones_own_is_trained_heard_and_used(visit, tmp_path, tone):
    page = visit()
    page.get_by_role("tab", name="Own style").click()
    names = [tmp_path / "one.wav", tmp_path / "two.wav", LAMPLIGHT]
    for path, hz in zip(names[:2], (220.0, 330.0), strict=True):
        soundfile.write(path, tone(20.0, hz=hz).T, 44100)
    page.set_input_files("#train-files", names)
    expect(page.locator("#train-list li")).to_have_count(3)
    page.get_by_label("What to call it").fill("Ann's <b>band</b>")
    page.get_by_role("button", name="Train on 1:13 of music").click()
    expect(page.locator("#train-text")).to_contain_text(re.compile("training|step|gathering|rendering", re.IGNORECASE))
    expect(page.locator("#train-done")).to_be_visible(timeout=600_000)
    expect(page.locator("#excerpts")).to_contain_text("“Lamplight” in your style")
    expect(page.locator("#excerpts audio").nth(1)).to_be_visible()
    shot(page, "5-own-style-dark")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the style file").click()
    from stylestream.style import load_style_file

    shutil.copyfile(download.value.path(), tmp_path / "own.safetensors")
    assert load_style_file(tmp_path / "own.safetensors").card.training_steps > 0
    page.get_by_role("button", name="Use it now").click()
    page.get_by_role("button", name="Take “Lamplight”").click()
    page.get_by_role("button", name="Play it as ann's").click()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#history li").first).to_contain_text("ann's")
    page.reload()
    expect(page.locator("#styles").get_by_text("Ann's <b>band</b>")).to_be_visible()
    page.get_by_role("button", name="Forget the style Ann's <b>band</b>").click()
    expect(page.locator("#styles").get_by_text("Ann's <b>band</b>")).to_have_count(0)
    expect(page.locator("#history li")).to_have_count(1)


# ------------------------------------------------------------------------------------------------------------- manners


def test_nothing_scrolls_sideways(visit):
    page = visit(viewport={"width": 390, "height": 844}, color_scheme="light", has_touch=True)
    page.get_by_role("button", name="Take “Lamplight”").click()
    choose(page, "tiny")
    page.get_by_role("button", name="Play it as tiny").click()
    expect(page.locator("#downloads")).to_be_visible()
    expect(page.locator("#painting")).to_be_visible()
    for tab in ("Own style", "For programs", "Play"):
        page.get_by_role("tab", name=tab).click()
        shot(page, f"6-phone-light-{tab.lower().replace(' ', '-')}")
        for width in (320, 390, 768, 1920):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        page.set_viewport_size({"width": 390, "height": 844})
    small = """[...document.querySelectorAll('#page-play button, #page-play a.button')].filter((b) => b.offsetParent)
        .map((b) => b.getBoundingClientRect()).filter((r) => r.height < 40 || r.width < 40).length"""
    assert page.evaluate(small) == 0  # a thumb finds every button


def contrast(a: str, b: str) -> float:
    """WCAG contrast ratio of two colours, #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_everything_can_be_read_in_the_dark_and_in_the_light(visit, scheme):
    page = visit(color_scheme=scheme)
    assert page.evaluate("document.documentElement.dataset.theme") == scheme  # as the visitor's system says
    look = "name => getComputedStyle(document.documentElement).getPropertyValue(name).trim()"

    def colour(name: str) -> str:
        value = page.evaluate(look, name)
        return value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:])

    for ground in ("--ground", "--card", "--raised", "--ground-2"):
        assert contrast(colour("--ink"), colour(ground)) >= 7
        assert contrast(colour("--soft"), colour(ground)) >= 4.5
        assert contrast(colour("--accent"), colour(ground)) >= 4.5
    assert contrast(colour("--bad"), colour("--bad-ground")) >= 4.5
    if scheme == "light":
        shot(page, "7-start-light")
    page.get_by_role("button", name="Switch between dark and light").click()
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") != scheme  # a choice is remembered


def test_the_whole_way_without_a_mouse(visit):
    page = visit()

    def tab_to(id: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("[document.activeElement.id, document.activeElement.value]").count(id):
                return
        raise AssertionError(f"no way to {id} by Tab")

    tab_to("lamplight")
    page.keyboard.press("Enter")
    expect(page.locator("#player")).to_be_visible()
    page.locator("#song-remove").focus()  # where the button that was pressed gave way
    tab_to("strings")
    for _ in range(20):
        if page.evaluate("document.activeElement.value") == "tiny":
            break
        page.keyboard.press("ArrowDown")
    tab_to("strength")
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    expect(page.locator("#strength-out")).to_have_text("90 %")
    tab_to("go")
    page.keyboard.press("Enter")
    expect(page.locator("#downloads")).to_be_visible()
    tab_to("hear-result")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#hear-song")).to_be_focused()
    expect(page.locator("#hear-song")).to_have_attribute("aria-checked", "true")
    tab_to("get-mp3")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename == "Lamplight-tiny.mp3"


def test_everything_has_a_name_and_can_be_reached_by_keyboard(visit):
    page = visit()
    page.get_by_role("button", name="Take “Lamplight”").click()
    expect(page.locator("#player")).to_be_visible()
    nameless = """[...document.querySelectorAll('button, input, a, [role=slider], canvas, progress, audio, [role=radiogroup]')]
        .filter((e) => !e.closest('[aria-hidden=true]') && !e.getAttribute('aria-labelledby'))
        .filter((e) => ![e.ariaLabel, e.labels?.[0]?.textContent, e.textContent, e.closest('label')?.textContent].some((t) => t?.trim()))
        .map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(60):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    assert {
        "theme",
        "tab-play",
        "song-remove",
        "sample",
        "strength",
        "dream",
        "grain",
        "seed",
        "go",
        "play",
        "hear-song",
        "seek",
    } <= reached
    page.locator("#hear-song").focus()
    page.keyboard.press("ArrowRight")  # no result yet: nothing to switch to
    expect(page.locator("#hear-song")).to_have_attribute("aria-checked", "true")
    page.get_by_role("tab", name="Play").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Own style")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("ArrowLeft")
    page.locator("#seek").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("stylestream.player.position") == 5
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play", exact=True)).to_be_visible()


def test_the_page_tells_programs_how_to_ask(visit):
    page = visit()
    page.get_by_role("tab", name="For programs").click()
    expect(page.locator("[data-code=curl]")).to_contain_text("/transfer?style=rock")
    shot(page, "8-for-programs-dark")
