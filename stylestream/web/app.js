// The page: what is on it, and what it asks of the server. `player.js` plays, `pictures.js` draws.

import { Player } from "./player.js";
import { Painting, Spectrogram, Visual, curve, grey, strip, theme, thumbnail, wave } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const settings = JSON.parse($("settings").textContent);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const player = new Player();
const visual = new Visual($("visual"));
const spectrograms = { card: new Spectrogram($("spec-card")), song: new Spectrogram($("spec-song")), result: new Spectrogram($("spec-result")) };
const state = { song: null, style: null, styles: [], job: null, history: [], peaks: {}, training: null, trained: null, trainings: [], trainSongs: [], sent: new Set() };

// ------------------------------------------------------------------------------------------------------------ small things

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const about = (seconds) => (seconds < 50 ? `about ${Math.max(Math.round(seconds / 5) * 5, 5)} seconds` : `about ${Math.max(Math.round(seconds / 60), 1)} min`);

function complain(id, message) {
  $(id).hidden = !message;
  $(id).textContent = message ? message[0].toUpperCase() + message.slice(1) + (/[.!?]$/.test(message) ? "" : ".") : "";
}

async function ask(url, options = {}) {
  let answer;
  try { answer = await fetch(url, options); } catch { throw new Error("the server cannot be reached; is it still running?"); }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Error(told.error || `the server answered ${answer.status}`);
  }
  return answer.json();
}

const post = (url, body) => ask(url, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function svg(path) {
  const holder = document.createElement("template");
  holder.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true">${path}</svg>`;
  return holder.content.firstChild;
}

// ------------------------------------------------------------------------------------------------------------ theme and tabs

function setTheme(name, keep) {
  document.documentElement.dataset.theme = name;
  if (keep) try { localStorage.setItem("theme", name); } catch { /* a private window keeps nothing */ }
  redraw();
}

function firstTheme() {
  try { const kept = localStorage.getItem("theme"); if (kept) return kept; } catch { /* as above */ }
  return matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

const tabs = ["play", "own", "api"];
function openTab(name, focus) {
  for (const tab of tabs) {
    const chosen = tab === name;
    $(`tab-${tab}`).setAttribute("aria-selected", chosen);
    $(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    $(`page-${tab}`).hidden = !chosen;
  }
  if (focus) $(`tab-${name}`).focus();
  redraw();
}

tabs.forEach((name) => {
  $(`tab-${name}`).onclick = () => openTab(name);
  $(`tab-${name}`).onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const there = tabs.filter((tab) => !$(`tab-${tab}`).hidden);
    if (step) { event.preventDefault(); openTab(there[(there.indexOf(name) + step + there.length) % there.length], true); }
  };
});
$("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "light" ? "dark" : "light", true);

// ------------------------------------------------------------------------------------------------------------ sending songs

// XMLHttpRequest, because fetch does not tell how far an upload is
function send(file, name, progress = () => {}, started = () => {}) {
  if (file.size > settings.upload_mb * 1e6) {
    return Promise.reject(new Error(`“${name}” is ${Math.round(file.size / 1e6)} MB; at most ${settings.upload_mb} MB are taken here`));
  }
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open("POST", `songs?name=${encodeURIComponent([...name].slice(-150).join(""))}`);
    request.upload.onprogress = (event) => progress(event.loaded / Math.max(event.total, 1));
    request.onerror = () => fail(new Error("the upload broke off; is the server still running?"));
    request.onabort = () => fail(new Error(""));
    started(() => request.abort());
    request.onload = () => {
      let told = {};
      try { told = JSON.parse(request.responseText); } catch { /* not ours */ }
      if (request.status === 201) { state.sent.add(told.id); done(told); }
      else fail(new Error(told.error || `the server answered ${request.status}`));
    };
    request.send(file);
  });
}

let sending = null; // the song that was chosen last is the one that counts
async function take(file, name) {
  sending?.abort();
  const mine = sending = { abort: () => {} };
  complain("song-error", "");
  const bar = $("upload"), chosen = $("drop").querySelector(".row");
  $("sending").hidden = false;
  chosen.hidden = true;
  bar.value = 0;
  $("sending-text").textContent = `Sending “${name}”`;
  const progress = (share) => {
    if (share < 1) bar.value = share;
    else { bar.removeAttribute("value"); $("sending-text").textContent = `Reading “${name}”`; }
  };
  try {
    const song = await send(file, name, (share) => sending === mine && progress(share), (abort) => { mine.abort = $("sending-cancel").onclick = abort; });
    if (sending === mine) useSong(song);
  } catch (error) {
    if (sending === mine) complain("song-error", error.message);
  } finally {
    if (!sending || sending === mine) {
      sending = null;
      $("sending").hidden = true;
      chosen.hidden = false;
    }
  }
}

function useSong(song) {
  sending?.abort();
  sending = null;
  stopRecording();
  state.job = null;
  showSong(song);
  player.at = 0;
  listenTo(song, null);
  readyToGo();
  showHistory();
  keepVisit();
}

function showSong(song) {
  state.song = song;
  $("drop").hidden = true;
  $("song-info").hidden = false;
  $("song-name").textContent = song.name;
  $("song-about").textContent = `${clock(song.seconds)} · ${song.channels === 1 ? "mono" : song.channels === 2 ? "stereo" : `${song.channels} channels`} · ${song.sample_rate / 1000} kHz`;
  $("song-warning").hidden = !song.warnings.length;
  $("song-warning").textContent = song.warnings.join("; ");
}

$("song-remove").onclick = () => {
  $("drop").hidden = false;
  $("song-info").hidden = true;
  state.song = null;
  player.pause();
  $("player").hidden = true;
  state.job = null;
  readyToGo();
  showHistory();
  keepVisit();
  $("file").focus();
};

function droppable(zone, takeFiles) {
  let depth = 0;
  zone.addEventListener("dragenter", () => { depth++; zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; zone.classList.remove("over"); } });
  zone.addEventListener("drop", (event) => {
    depth = 0;
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) takeFiles([...event.dataTransfer.files]);
  });
}
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => event.preventDefault());
droppable($("drop"), (files) => take(files[0], files[0].name));
$("file").onchange = (event) => { const [file] = event.target.files; if (file) take(file, file.name); event.target.value = ""; };
$("lamplight").onclick = async () => {
  complain("song-error", "");
  try { useSong(await ask("songs/lamplight")); } catch (error) { complain("song-error", error.message); }
};

let recorder = null;
function stopRecording() { // and forget it: another song has been chosen
  if (!recorder) return;
  recorder.discard = true;
  recorder.stop();
}
$("record").onclick = async () => {
  if (recorder) { recorder.stop(); return; }
  complain("song-error", "");
  if (!navigator.mediaDevices?.getUserMedia) { complain("song-error", "this browser records only on pages with https, or on the same machine"); return; }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    const parts = [];
    recorder = new MediaRecorder(stream);
    const ends = setTimeout(() => recorder?.stop(), settings.song_seconds * 1000);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearTimeout(ends);
      stream.getTracks().forEach((track) => track.stop());
      const { discard } = recorder, kind = recorder.mimeType.includes("mp4") ? "mp4" : recorder.mimeType.includes("ogg") ? "ogg" : "webm";
      recorder = null;
      $("record").classList.remove("recording");
      $("record").querySelector("span").textContent = "Record";
      if (!discard) take(new Blob(parts), `recording.${kind}`);
    };
    recorder.start();
    const began = performance.now(), label = $("record").querySelector("span");
    const tell = () => { if (recorder) { label.textContent = `Stop (${clock((performance.now() - began) / 1000)})`; setTimeout(tell, 250); } };
    $("record").classList.add("recording");
    tell();
  } catch (error) {
    recorder = null;
    complain("song-error", error.name === "NotAllowedError" ? "the browser does not let this page use the microphone; allow it beside the address" : "no microphone was found");
  }
};

// ------------------------------------------------------------------------------------------------------------ styles

const sampler = new Audio();
let sampled = null;
function playSample(button, style) {
  const same = sampled === button && !sampler.paused;
  stopSample();
  if (same) return;
  player.pause();
  sampled = button;
  button.classList.add("playing");
  button.setAttribute("aria-label", `Stop the sample of ${style.title}`);
  sampler.src = `styles/${encodeURIComponent(style.name)}/sample.flac`;
  sampler.play().catch((error) => { if (error.name !== "AbortError") complain("style-error", `the sample of ${style.title} cannot be played`); stopSample(); });
}
function stopSample() {
  sampler.pause();
  if (!sampled) return;
  sampled.classList.remove("playing");
  sampled.setAttribute("aria-label", sampled.dataset.label);
  sampled = null;
}
sampler.onended = stopSample;

function styleCard(style) {
  const radio = make("input", { type: "radio", name: "style", value: style.name });
  radio.setAttribute("aria-label", `${style.title}: ${style.description}`);
  radio.onchange = () => { state.style = style; $("drums-dial").hidden = !style.drums; $("width-dial").hidden = !style.width; complain("style-error", ""); readyToGo(); };
  const picture = make("canvas");
  picture.setAttribute("aria-hidden", "true");
  const sample = make("button", { type: "button", className: "sample" }, svg('<path class="p" d="M8 5v14l11-7z"/><path class="q" d="M7 5h4v14H7zm6 0h4v14h-4z"/>'));
  sample.dataset.label = `Play a sample of ${style.title}`;
  sample.setAttribute("aria-label", sample.dataset.label);
  sample.onclick = (event) => { event.preventDefault(); playSample(sample, style); };
  const told = style.description || (style.own ? "trained by you" : "");
  const text = make("span", { className: "text" }, make("strong", { textContent: style.title }), make("span", { textContent: told && told[0].toUpperCase() + told.slice(1) }));
  const tick = make("span", { className: "tick", textContent: "✓" });
  tick.setAttribute("aria-hidden", "true");
  const card = make("label", { className: "style", title: `${style.licence} · ${style.hours} h of music${style.notes ? ` · ${style.notes}` : ""}` }, radio, picture, text, sample, tick);
  grey(`styles/${encodeURIComponent(style.name)}/picture.png`).then((shown) => { style.picture = shown; style.canvas = picture; thumbnail(picture, shown); }).catch(() => {});
  style.radio = radio;
  return card;
}

function addStyle(style, choose) {
  state.styles.push(style);
  $("styles").append(styleCard(style));
  if (choose) { style.radio.checked = true; style.radio.onchange(); }
}

// ------------------------------------------------------------------------------------------------------------ how

const words = {
  strength: (v) => (v === 0 ? "your song, unchanged" : v === 1 ? "all the way" : `${Math.round(100 * v)} %`),
  dream: (v) => (v === 0 ? "nothing" : v < 3 ? `a little (${v})` : v < 6 ? `much (${v})` : `nearly all (${v})`),
  grain: (v) => (v < 0.2 ? "smooth" : v < 0.7 ? "some grain" : "rough"),
  drums: (v) => (v === 0 ? "no drums" : v < 0.4 ? "softly" : v <= 0.6 ? "as usual" : "loud"),
  width: (v) => (v === 0 ? "as your song" : v === 1 ? "as wide as the style" : `${Math.round(100 * v)} %`),
};
function dials() {
  for (const [name, say] of Object.entries(words)) {
    const text = say(+$(name).value);
    $(`${name}-out`).textContent = text;
    $(name).setAttribute("aria-valuetext", text);
  }
  $("train-minutes-out").textContent = `${$("train-minutes").value} min`;
}
for (const name of [...Object.keys(words), "train-minutes"]) $(name).oninput = dials;

const unfinished = (job) => ["waiting", "running"].includes(job.state);
const busy = () => state.job && unfinished(state.job);
function readyToGo() {
  const button = $("go");
  button.disabled = !state.song || !state.style || busy();
  button.textContent = !state.song ? "Choose a song first" : !state.style ? "Choose a style" : busy() ? "Working…" : `Play it as ${state.style.title.toLowerCase()}`;
}

$("go").onclick = async () => {
  complain("go-error", "");
  stopSample();
  if (state.song) player.at = 0;
  const asked = { song: state.song.id, style: state.style.name, strength: +$("strength").value, dream: +$("dream").value, grain: +$("grain").value, drums: state.style.drums ? +$("drums").value : 0, width: state.style.width ? +$("width").value : 0, seed: Math.max(Math.round(+$("seed").value) || 0, 0) };
  $("go").disabled = true;
  // the context must be opened by a gesture, and this is the last one before the sound is there
  try { player.song && (await player.open()); } catch { /* a machine without sound can still make songs */ }
  try {
    watch(await post("jobs?watched=true", asked));
    $("player").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  } catch (error) { complain("go-error", error.message); readyToGo(); }
};

$("cancel").onclick = () => state.job && ask(`jobs/${state.job.id}`, { method: "DELETE" }).catch(() => {});

// ------------------------------------------------------------------------------------------------------------ a job

// A browser opens six connections to a server, in all of its tabs together: one job of this page is told of as it goes, of others is asked.
let streaming = false;
let leaving = false; // a page that is left closes its connections, which is no trouble
addEventListener("beforeunload", () => { leaving = true; setTimeout(() => { leaving = false; }, 3000); });
addEventListener("pagehide", () => { leaving = true; });
addEventListener("pageshow", () => { leaving = false; });

const lost = (job) => ({ ...job, state: "failed", error: "the connection to the server is lost; try again" });

function follow(job, tell) {
  if (streaming) { askAfter(job, tell); return; }
  streaming = true;
  const events = new EventSource(`jobs/${job.id}/events`), close = () => { events.close(); streaming = false; };
  let misses = 0;
  events.onmessage = (event) => {
    misses = 0;
    const view = JSON.parse(event.data);
    if (!unfinished(view)) close();
    tell(view);
  };
  events.onerror = () => {
    if (!leaving && (events.readyState === EventSource.CLOSED || ++misses > 5)) { close(); tell(lost(job)); }
  };
}

async function askAfter(job, tell) {
  for (let misses = 0, told = ""; misses < 5;) {
    await new Promise((wait) => { setTimeout(wait, 700); });
    try {
      const answer = await fetch(`jobs/${job.id}`), text = await answer.text();
      if (!answer.ok) break;
      misses = 0;
      if (text === told) continue;
      told = text;
      const view = JSON.parse(text);
      tell(view);
      if (!unfinished(view)) return;
    } catch { misses += 1; }
  }
  tell(lost(job));
}

function watch(job, play = true) {
  state.job = job;
  let heard = !play; // after a reload no browser plays before it is clicked on
  $("work").hidden = false;
  $("spec-veil").hidden = false;
  $("downloads").hidden = $("painting").hidden = true;
  spectrograms.result.show(null);
  listenTo(job.song, job);
  remember(job);
  readyToGo();
  follow(job, (view) => {
    const mine = state.job?.id === view.id;
    remember(view);
    if (mine) {
      if (view.samples && !state.job.samples) enableResult();
      Object.assign(state.job, view);
      showWork(view);
      if (["cancelled", "failed"].includes(view.state)) return;
      if (!heard && player.there(player.tracks[1], 0)) { heard = true; hear("result"); player.play().catch(() => {}); }
      if (view.painted && $("painting").hidden) paint(view.id);
    }
    if (view.state === "done" && mine) finished(view);
    if (mine && !busy()) readyToGo();
  });
}

function showWork(view) {
  const running = view.state === "running";
  $("work").hidden = !busy();
  const place = view.position === 1 ? "next in the queue" : `number ${view.position} in the queue`;
  $("work-text").textContent = view.state === "waiting" ? (view.position ? `Waiting: ${place}` : "Waiting") : running ? `${view.text[0]?.toUpperCase() ?? ""}${view.text.slice(1)}… ${Math.round(100 * view.fraction)} %` : "";
  $("work-wait").textContent = view.state === "waiting" && view.wait_seconds ? about(view.wait_seconds) : "";
  $("work-bar").value = view.fraction;
  if (view.state === "failed") complain("go-error", view.error);
  if (view.state === "cancelled" || view.state === "failed") {
    if (view.state === "cancelled") complain("go-error", "");
    if (player.playing) player.pause();
    disableResult();
    state.job = null;
    listenTo(state.song, null);
    readyToGo();
  }
}

async function finished(view) {
  for (const kind of ["wav", "flac", "mp3"]) $(`get-${kind}`).href = `jobs/${view.id}/result.${kind}`;
  $("downloads").hidden = false;
  try {
    const [picture, peaks] = await Promise.all([grey(`jobs/${view.id}/picture.png`), ask(`jobs/${view.id}/peaks`)]);
    if (state.job?.id !== view.id) return;
    spectrograms.result.show(picture, view.song.seconds);
    $("spec-veil").hidden = true;
    state.peaks.result = peaks;
    redraw();
  } catch (error) { complain("player-error", error.message); }
}

// ------------------------------------------------------------------------------------------------------------ listening

async function listenTo(song, job) {
  const name = job ? job.style.title.toLowerCase() : "result";
  $("player").hidden = false;
  $("now").textContent = job ? `${song.name.replace(/\.\w+$/, "")}, as ${name}` : song.name.replace(/\.\w+$/, "");
  $("hear-result").textContent = name;
  $("spec-title").textContent = job ? `as ${name}` : "the result";
  $("spec-veil").textContent = job ? "being made" : "not made yet";
  $("spec-veil").hidden = false;
  if (!job) { $("downloads").hidden = $("painting").hidden = $("work").hidden = true; spectrograms.result.show(null); }
  state.peaks.result = null;
  const tracks = [{ url: (n) => `songs/${song.id}/sound/${n}`, samples: () => song.samples }];
  if (job) tracks.push({ url: (n) => `jobs/${job.id}/sound/${n}`, samples: () => (state.job?.id === job.id ? state.job.samples : job.samples) });
  player.load(song, tracks);
  $("length").textContent = clock(song.seconds);
  $("seek").setAttribute("aria-valuemax", Math.round(song.seconds));
  if (job?.samples) enableResult(); else disableResult();
  if (state.shown !== song.id) {
    state.shown = song.id;
    state.peaks.song = null;
    for (const kind of ["card", "song"]) spectrograms[kind].show(null);
    try {
      const peaks = await ask(`songs/${song.id}/peaks`);
      if (state.shown !== song.id) return; // another was chosen meanwhile
      state.peaks.song = peaks;
      redraw();
      const picture = await grey(`songs/${song.id}/picture.png`);
      if (state.shown === song.id) for (const kind of ["card", "song"]) spectrograms[kind].show(picture, song.seconds);
    } catch (error) { complain("player-error", error.message); }
  }
  redraw();
}

function disableResult() { $("hear-result").disabled = $("mix").disabled = true; hear("song"); }
function enableResult() { $("hear-result").disabled = $("mix").disabled = false; }

function hear(which) {
  if (which === "result" && $("hear-result").disabled) return;
  setMix(which === "result" ? 1 : 0);
}
function setMix(mix) {
  player.setMix(mix);
  $("mix").value = mix;
  $("mix").setAttribute("aria-valuetext", mix === 0 ? "only the song" : mix === 1 ? "only the result" : `${Math.round(100 * mix)} percent result`);
  $("hear-song").setAttribute("aria-checked", mix === 0);
  $("hear-result").setAttribute("aria-checked", mix === 1);
}
$("hear-song").onclick = () => hear("song");
$("hear-result").onclick = () => hear("result");
$("hear-song").parentElement.onkeydown = (event) => { // as radio buttons do
  if (!event.key.startsWith("Arrow")) return;
  event.preventDefault();
  event.stopPropagation();
  hear(player.mix < 0.5 ? "result" : "song");
  $(player.mix < 0.5 ? "hear-song" : "hear-result").focus();
};
$("mix").oninput = () => setMix(+$("mix").value);
$("volume").oninput = () => player.setVolume(+$("volume").value);
const toggle = () => { stopSample(); if (player.playing) player.pause(); else player.play().catch(() => complain("player-error", "this browser plays no sound; download the result instead")); };
$("play").onclick = toggle;
player.addEventListener("trouble", (event) => complain("player-error", event.detail));
player.addEventListener("change", () => {
  $("play").classList.toggle("playing", player.playing);
  $("play").setAttribute("aria-label", player.playing ? "Pause" : "Play");
  if (player.playing && !player.waiting) complain("player-error", "");
  redraw();
});

const seekTo = (event) => { const box = event.currentTarget.getBoundingClientRect(); player.seek(((event.clientX - box.left) / box.width) * player.seconds); };
$("seek").onclick = seekTo;
for (const id of ["wave-card", "spec-card", "spec-song", "spec-result"]) $(id).onclick = seekTo;
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("player").hidden || $("page-play").hidden) return;
  const { tagName: tag, type, role, id } = event.target, key = event.key.toLowerCase();
  if (tag === "SELECT" || tag === "TEXTAREA" || ["text", "number", "search"].includes(type)) return; // there one writes
  const moves = tag === "INPUT" || role === "tab"; // what arrows move already
  if (key === " " && type !== "radio" && !["BUTTON", "A", "LABEL", "AUDIO"].includes(tag)) toggle();
  else if (key === "a") hear("song");
  else if (key === "b") hear("result");
  else if (!moves && key === "arrowleft") player.seek(player.position - 5);
  else if (!moves && key === "arrowright") player.seek(player.position + 5);
  else if (id === "seek" && key === "home") player.seek(0);
  else if (id === "seek" && key === "end") player.seek(player.seconds);
  else return;
  event.preventDefault();
});

// ------------------------------------------------------------------------------------------------------------ painting

const painting = new Painting($("canvas"), (step, name) => { $("strokes").value = step; $("stroke").textContent = name; $("strokes").setAttribute("aria-valuetext", name); });
async function paint(id) {
  $("painting").hidden = false;
  try {
    const picture = await grey(`jobs/${id}/canvases.png`);
    if (state.job?.id !== id) return;
    painting.show(picture);
    $("strokes").max = painting.steps - 1;
    if (calm.matches) painting.go(painting.steps - 1);
  } catch { $("painting").hidden = true; }
}
$("repaint").onclick = () => painting.run();
$("strokes").oninput = () => painting.go(+$("strokes").value);

// ------------------------------------------------------------------------------------------------------------ this visit

// What was made, and what is being made. The browser keeps the addresses for as long as this tab is open, so that a reload loses nothing.

function keepVisit() {
  const kept = { jobs: state.history.map((job) => job.id), shown: state.job?.id, song: state.song?.id, trainings: state.trainings.map((job) => job.id), sent: [...state.sent], records: state.trainSongs.map((song) => song.id).filter(Boolean) };
  try { sessionStorage.setItem("visit", JSON.stringify(kept)); } catch { /* a private window keeps nothing */ }
}

function remember(view) {
  const old = state.history.findIndex((job) => job.id === view.id);
  if (["failed", "cancelled"].includes(view.state)) { if (old >= 0) state.history.splice(old, 1); }
  else if (old < 0) state.history.unshift(view);
  else {
    const changed = state.history[old].state !== view.state;
    state.history[old] = view;
    if (!changed) { showShare(view); return; }
  }
  showHistory();
  keepVisit();
}

const shareText = (job) => (job.state === "waiting" ? "waiting" : `${Math.round(100 * job.fraction)} %`);
function showShare(job) {
  const shown = document.querySelector(`[data-share="${job.id}"]`);
  if (shown) shown.textContent = shareText(job);
}

function showHistory() {
  const made = state.trainings.filter((job) => job.state === "done");
  $("history-card").hidden = !state.history.length && !made.length;
  $("forget").hidden = [...state.history, ...state.trainings].some(unfinished);
  $("history").replaceChildren(...state.history.map(historyLine), ...made.map(trainingLine));
}

function trainingLine(job) {
  const remove = make("button", { type: "button", textContent: "Forget", onclick: () => forget([job]) });
  remove.setAttribute("aria-label", `Forget the style ${job.title}`);
  return make("li", {}, make("strong", { textContent: job.title }), make("span", { textContent: "your own style" }), make("span", { className: "acts" }, remove));
}

function historyLine(job) {
  const name = job.song.name.replace(/\.\w+$/, ""), what = `${name} as ${job.style.title.toLowerCase()}`;
  const turned = [job.dials.strength !== 1 && `strength ${job.dials.strength}`, job.dials.dream && `dream ${job.dials.dream}`, job.dials.grain !== 0.5 && `texture ${job.dials.grain}`, job.dials.drums && `drums ${job.dials.drums}`, job.dials.width && `width ${job.dials.width}`, job.dials.seed && `chance ${job.dials.seed}`].filter(Boolean);
  const button = (label, act) => {
    const made = make("button", { type: "button", textContent: label, onclick: act });
    made.setAttribute("aria-label", `${label} ${label === "Listen" ? "to " : ""}${what}`);
    return made;
  };
  const share = make("span", { className: "muted", textContent: unfinished(job) ? shareText(job) : "" });
  share.dataset.share = job.id;
  const acts = unfinished(job)
    ? [button("Cancel", () => ask(`jobs/${job.id}`, { method: "DELETE" }).catch(() => {}))]
    : [button("Listen", () => recall(job)), button("Forget", () => forget([job]))];
  const line = make("li", {}, make("strong", { textContent: name }), make("span", { textContent: `as ${job.style.title.toLowerCase()}` }), make("span", { className: "muted small", textContent: turned.join(" · ") }), share, make("span", { className: "acts" }, ...acts));
  line.classList.toggle("current", state.job?.id === job.id);
  return line;
}

async function forget(jobs, all = false) {
  for (const job of jobs) {
    await ask(`jobs/${job.id}?forget=true`, { method: "DELETE" }).catch(() => {});
    state.history = state.history.filter((other) => other.id !== job.id);
    if (state.trainings.some((other) => other.id === job.id)) forgetStyle(job);
    if (state.job?.id === job.id) { state.job = null; if (state.song) listenTo(state.song, null); }
  }
  if (all) { state.trainSongs = []; trainReady(); }
  const needed = new Set([state.song?.id, "lamplight", ...state.history.map((job) => job.song.id), ...state.trainSongs.map((song) => song.id)]);
  const songs = new Set([...(all ? state.sent : []), ...jobs.flatMap((job) => job.song?.id ?? [])]);
  for (const id of songs) if (!needed.has(id)) await ask(`songs/${id}`, { method: "DELETE" }).catch(() => {});
  showHistory();
  keepVisit();
  readyToGo();
  ($("history").querySelector("button") ?? $("go")).focus(); // the button that was pressed is gone
}
$("forget").onclick = () => forget([...state.history, ...state.trainings], true);

function forgetStyle(job) {
  state.trainings = state.trainings.filter((other) => other.id !== job.id);
  const style = state.styles.find((known) => known.name === job.style?.name);
  if (style) {
    state.styles.splice(state.styles.indexOf(style), 1);
    style.radio.closest(".style").remove();
    if (state.style === style) state.style = null;
  }
  if (state.trained?.id === job.id) { state.trained = null; $("train-work").hidden = $("train-done").hidden = true; }
}

// After a reload: what this tab had made, and the song that was chosen.
async function takeUp() {
  let kept = {};
  try { kept = JSON.parse(sessionStorage.getItem("visit") ?? "{}"); } catch { /* as above */ }
  const there = (url) => ask(url).catch(() => null); // what the server has removed meanwhile
  state.sent = new Set(kept.sent);
  for (const id of kept.trainings ?? []) takeUpTraining(await there(`jobs/${encodeURIComponent(id)}`));
  const jobs = (await Promise.all((kept.jobs ?? []).map((id) => there(`jobs/${encodeURIComponent(id)}`)))).filter((job) => job && (job.state === "done" || unfinished(job)));
  state.history = jobs;
  const shown = jobs.find((job) => job.id === kept.shown);
  for (const job of jobs) if (unfinished(job) && job !== shown) follow(job, remember);
  if (shown) {
    state.styles.find((style) => style.name === shown.style.name)?.radio.click();
    for (const name of ["strength", "dream", "grain", "drums", "width", "seed"]) $(name).value = shown.dials[name];
    dials();
  }
  if (shown && unfinished(shown)) { showSong(shown.song); watch(shown, false); }
  else if (shown) await recall(shown, false);
  else if (kept.song) {
    const song = await there(`songs/${encodeURIComponent(kept.song)}`);
    if (song) useSong(song);
  }
  state.trainSongs = (await Promise.all((kept.records ?? []).map((id) => there(`songs/${encodeURIComponent(id)}`)))).filter(Boolean);
  trainReady();
  showHistory();
  keepVisit();
}

async function recall(job, scroll = true) {
  complain("history-error", busy() ? "wait until the song in work is done, or cancel it" : "");
  if (busy()) return;
  showSong(job.song);
  state.job = { ...job };
  const listening = listenTo(job.song, state.job);
  hear("result");
  showHistory();
  keepVisit();
  readyToGo();
  if (scroll) $("player").scrollIntoView({ behavior: calm.matches ? "auto" : "smooth" });
  await listening;
  await finished(job);
  if (job.painted) paint(job.id);
}

// ------------------------------------------------------------------------------------------------------------ own style

function trainReady() {
  const there = state.trainSongs.filter((song) => song.id), seconds = there.reduce((sum, song) => sum + song.seconds, 0), pending = state.trainSongs.some((song) => song.pending);
  $("train-go").disabled = !there.length || pending || !!state.training;
  $("train-go").textContent = state.training ? "Training…" : pending ? "Reading the records…" : there.length ? `Train on ${clock(seconds)} of music` : "Add some records first";
  $("train-list").replaceChildren(...state.trainSongs.map((song) => {
    const remove = make("button", { type: "button", className: "ghost", textContent: "Remove" });
    remove.setAttribute("aria-label", `Remove ${song.name}`);
    remove.onclick = () => { state.trainSongs.splice(state.trainSongs.indexOf(song), 1); trainReady(); keepVisit(); };
    return make("li", { className: song.error ? "bad" : "" }, make("strong", { textContent: song.name }), make("span", { className: song.error ? "" : "muted", textContent: song.error || (song.pending ? "reading…" : clock(song.seconds)) }), remove);
  }));
}

async function takeRecords(files) {
  complain("train-error", "");
  for (const file of files) {
    if (state.trainSongs.length >= settings.train_songs) { complain("train-error", `at most ${settings.train_songs} records are taken here`); break; }
    const song = { name: file.name, pending: true };
    state.trainSongs.push(song);
    trainReady();
    try { Object.assign(song, await send(file, file.name)); } catch (error) { song.error = error.message; }
    song.pending = false;
    trainReady();
    keepVisit();
  }
}
droppable($("train-drop"), takeRecords);
$("train-files").onchange = (event) => { takeRecords([...event.target.files]); event.target.value = ""; };

$("train-go").onclick = async () => {
  complain("train-error", "");
  try {
    const minutes = +$("train-minutes").value;
    const job = await post("train?watched=true", { songs: state.trainSongs.filter((song) => song.id).map((song) => song.id), title: $("train-title").value || "my style", minutes });
    watchTraining(job);
  } catch (error) { complain("train-error", error.message); }
  trainReady();
};

function watchTraining(job) {
  state.training = state.trained = job;
  state.trainings.push(job);
  $("train-work").hidden = false;
  $("train-done").hidden = true;
  $("train-cancel").hidden = false;
  $("excerpts").replaceChildren();
  keepVisit();
  follow(job, showTraining);
}

function takeUpTraining(job) {
  if (job && unfinished(job)) watchTraining(job);
  else if (job?.state === "done") { state.trainings.push(job); $("train-work").hidden = false; $("excerpts").replaceChildren(); showTraining(job); }
}
$("train-cancel").onclick = () => state.training && ask(`jobs/${state.training.id}`, { method: "DELETE" }).catch(() => {});

function showTraining(job) {
  state.trained = job;
  const over = ["done", "failed", "cancelled"].includes(job.state);
  $("train-text").textContent = job.state === "waiting" ? `Waiting${job.position ? `: number ${job.position} in the queue` : ""}` : job.state === "running" ? job.text || "starting" : job.state === "done" ? `“${job.title}” is ready` : job.state;
  $("train-wait").textContent = job.state === "waiting" && job.wait_seconds ? about(job.wait_seconds) : "";
  $("train-bar").value = job.fraction || 0;
  $("train-lines").replaceChildren(...(job.lines ?? []).map((line) => make("li", { textContent: line })));
  drawCurve();
  while ($("excerpts").children.length < (job.excerpts?.length ?? 0)) {
    const n = $("excerpts").children.length;
    const sound = make("audio", { controls: true, preload: "metadata", src: `jobs/${job.id}/excerpts/${n}` });
    sound.setAttribute("aria-label", job.excerpts[n]);
    $("excerpts").append(make("div", {}, make("span", { textContent: job.excerpts[n] }), sound));
  }
  if (job.error) complain("train-error", job.error);
  if (!over) return;
  state.training = null;
  state.trainings = state.trainings.map((other) => (other.id === job.id ? job : other)).filter((other) => unfinished(other) || other.state === "done");
  $("train-cancel").hidden = true;
  $("train-done").hidden = job.state !== "done";
  if (job.state === "done") {
    $("train-file").href = `jobs/${job.id}/style.safetensors`;
    if (!state.styles.some((style) => style.name === job.style.name)) addStyle({ ...job.style, title: job.title }, false);
  }
  trainReady();
  showHistory();
  keepVisit();
}

function drawCurve() {
  const job = state.trained;
  if (!job || $("page-own").hidden || $("train-work").hidden) return;
  const rows = (job.rows ?? []).filter((row) => "score/way" in row).map((row) => ({ minutes: row.seconds / 60, way: row["score/way"] }));
  const ceiling = (job.rows ?? []).map((row) => row["score/ceiling"]).filter(Number.isFinite).pop();
  curve($("curve"), rows, ceiling, Math.max(job.minutes ?? 1, ...rows.map((row) => row.minutes)));
}

$("train-use").onclick = () => {
  const style = state.styles.find((known) => known.name === state.trained.style.name);
  style.radio.checked = true;
  style.radio.onchange();
  openTab("play", true);
  style.radio.closest(".style").scrollIntoView({ block: "center", behavior: "smooth" });
};

// ------------------------------------------------------------------------------------------------------------ drawing

function drawPlace() {
  if ($("player").hidden || $("page-play").hidden || !player.song) return;
  const position = player.position;
  $("time").textContent = clock(position);
  $("seek").setAttribute("aria-valuenow", Math.round(position));
  $("seek").setAttribute("aria-valuetext", `${clock(position)} of ${clock(player.seconds)}`);
  const made = state.job && player.song ? (state.job.samples ?? 0) / player.song.samples : 0;
  spectrograms.song.draw(position);
  spectrograms.result.draw(position);
  if (!$("song-info").hidden) spectrograms.card.draw(position);
  const width = $("wave").clientWidth, now = [Math.round((2 * position * width) / Math.max(player.seconds, 1e-3)), width, made, state.peaks.song?.length, state.peaks.result?.length, theme(), $("song-info").hidden].join(" ");
  if (now === drawPlace.shown) return; // not a pixel has changed
  drawPlace.shown = now;
  wave($("wave"), { song: state.peaks.song, result: state.peaks.result, made, position: position / Math.max(player.seconds, 1e-3) });
  if (!$("song-info").hidden) strip($("wave-card"), state.peaks.song ?? [], position / Math.max(player.seconds, 1e-3));
}

function redraw() {
  drawPlace.shown = null;
  for (const style of state.styles) if (style.picture && !$("page-play").hidden) thumbnail(style.canvas, style.picture);
  for (const kind of ["card", "song"]) spectrograms[kind].recolour();
  spectrograms.result.recolour();
  drawPlace();
  if (!$("painting").hidden) painting.draw();
  drawCurve();
}
let resized = 0;
addEventListener("resize", () => { cancelAnimationFrame(resized); resized = requestAnimationFrame(redraw); });

let drawn = 0, idle = 0;
function frame(now) {
  requestAnimationFrame(frame);
  if (document.hidden || now - drawn < (calm.matches ? 250 : 30)) return;
  drawn = now;
  painting.tick(now);
  if ($("player").hidden || $("page-play").hidden) return;
  idle = player.playing ? 0 : idle + 1;
  if (idle > 60 && !busy()) return; // nothing moves any more
  visual.draw(player.bars(Math.max(Math.min(Math.floor($("visual").clientWidth / 11), 96), 24)));
  drawPlace();
}

// ------------------------------------------------------------------------------------------------------------ the start

function examples() {
  const here = new URL("./", location.href).href.replace(/\/$/, "");
  const code = {
    curl: `curl --data-binary @waltz.mp3 "${here}/transfer?style=rock&name=waltz.mp3" -o waltz-rock.wav`,
    client: `from gradio_client import Client, handle_file\n\nclient = Client("${here}/")\nprint(client.predict(api_name="/styles"))\nsong = client.predict(handle_file("waltz.mp3"), "rock", strength=0.9, api_name="/transfer")\nstyle = client.predict([handle_file("record.mp3")], "my style", minutes=5, api_name="/train")`,
    steps: `curl --data-binary @waltz.mp3 "${here}/songs?name=waltz.mp3"                  # → {"id": SONG, …}\ncurl -H 'content-type: application/json' -d '{"song": SONG, "style": "rock"}' ${here}/jobs   # → {"id": JOB, …}\ncurl -N ${here}/jobs/JOB/events                                # how far it is\ncurl ${here}/jobs/JOB/sound/0 -o first-seconds.flac            # while the rest is made\ncurl ${here}/jobs/JOB/result.flac -O`,
  };
  for (const element of document.querySelectorAll("[data-code]")) element.textContent = code[element.dataset.code];
}

async function start() {
  const kept = settings.keep_minutes >= 90 ? `${Math.floor(settings.keep_minutes / 6) / 10} hours` : settings.keep_minutes === 60 ? "an hour" : `${settings.keep_minutes} minutes`;
  setTheme(firstTheme());
  $("song-limits").textContent = `or choose one: any audio, video or MIDI, up to ${settings.song_seconds < 60 ? `${Math.floor(settings.song_seconds)} s` : settings.song_seconds % 60 ? `${clock(settings.song_seconds)} min` : `${settings.song_seconds / 60} min`}`;
  $("version").textContent = settings.version;
  $("keep-foot").textContent = kept;
  $("keep").textContent = `Results are kept for ${kept} after they were last asked for, and only who has the address can hear them.`;
  $("train-minutes").max = Math.max(Math.floor(settings.train_minutes), 1);
  if (settings.train_minutes < 5) $("train-minutes").value = 1;
  if (settings.train_minutes < 1) { $("train-minutes").min = $("train-minutes").max = $("train-minutes").value = settings.train_minutes; $("train-minutes").step = "any"; }
  if (!settings.train_minutes) $("tab-own").hidden = true;
  examples();
  dials();
  requestAnimationFrame(frame);
  try {
    for (const style of await ask("styles")) addStyle(style, false);
    await takeUp();
    if (state.styles[0] && !state.style) { const first = state.styles.find((style) => style.name === "strings") ?? state.styles[0]; first.radio.checked = true; first.radio.onchange(); }
  } catch (error) { complain("style-error", error.message); }
}
start();

globalThis.stylestream = { player }; // for the browser's console, and for tests that want to know what sounds
