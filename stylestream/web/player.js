// Two sounds under one play head. Parts of a few seconds are fetched as they are needed, decoded, and scheduled to the sample; both
// sounds always run, and what is heard is a matter of two gains. So switching is instant, and a sound may still be in the making.

const AHEAD_SECONDS = 9;
const KEPT_PARTS = 40;
const SWITCH_SECONDS = 0.015;

export class Player extends EventTarget {
  constructor() {
    super();
    this.context = null;
    this.tracks = [];
    this.mix = 0;
    this.volume = 0.9;
    this.playing = false;
    this.waiting = false;
    this.at = 0; // where the play head stands when nothing plays
    setInterval(() => this.tick(), 100);
  }

  // song: {sample_rate, samples, part_seconds}; tracks: [{url(n), samples()}], the song's and the result's
  load(song, tracks) {
    this.pause();
    if (this.context && this.context.sampleRate !== song.sample_rate) { this.context.close(); this.context = null; }
    this.song = song;
    this.tracks = tracks.map((track) => ({ ...track, parts: new Map(), sources: new Map(), failed: 0 }));
    this.seconds = song.samples / song.sample_rate;
    this.at = Math.min(this.at, this.seconds);
    if (this.context) this.wire();
  }

  open() {
    // at the song's own rate: then parts follow each other without a seam
    this.context ??= new AudioContext({ sampleRate: this.song.sample_rate, latencyHint: "playback" });
    if (!this.master || this.master.context !== this.context) {
      this.master = this.context.createGain();
      this.analyser = this.context.createAnalyser();
      this.analyser.fftSize = 8192;
      this.analyser.smoothingTimeConstant = 0.78;
      this.master.connect(this.analyser).connect(this.context.destination);
    }
    this.wire();
    return this.context.resume();
  }

  wire() {
    for (const track of this.tracks) {
      if (track.gain?.context === this.context) continue;
      track.gain = this.context.createGain();
      track.gain.connect(this.master);
    }
    this.level(0);
  }

  level(seconds = SWITCH_SECONDS) {
    if (!this.context) return;
    const now = this.context.currentTime;
    const to = (param, value) => { param.cancelScheduledValues(now); param.setTargetAtTime(value, now, Math.max(seconds / 3, 0.0005)); };
    this.tracks.forEach((track, k) => track.gain && to(track.gain.gain, this.share(k)));
    if (this.master) to(this.master.gain, this.volume);
  }

  share(k) { return this.tracks.length < 2 ? 1 : k ? this.mix : 1 - this.mix; }
  setMix(mix) { this.mix = mix; this.level(); }
  setVolume(volume) { this.volume = volume; this.level(); }

  get position() {
    if (!this.playing || this.waiting) return this.at;
    return Math.min(Math.max(this.origin + this.context.currentTime - this.started, this.at), this.seconds);
  }

  async play() {
    if (!this.song || this.playing) return;
    if (this.at >= this.seconds - 0.05) this.at = 0;
    this.playing = true;
    this.waiting = true;
    this.changed();
    try { await this.open(); } catch (error) { this.playing = false; this.changed(); throw error; }
    this.tick();
  }

  pause() {
    if (!this.playing) return;
    this.at = this.position;
    this.playing = this.waiting = false;
    this.silence();
    this.changed();
  }

  seek(seconds) {
    const was = this.playing;
    this.at = Math.min(Math.max(seconds, 0), this.seconds || 0);
    this.silence();
    if (was) { this.waiting = true; this.tick(); }
    this.changed();
  }

  silence() {
    for (const track of this.tracks) {
      for (const source of track.sources.values()) { try { source.stop(); } catch { /* not started */ } source.disconnect(); }
      track.sources.clear();
    }
  }

  changed() { this.dispatchEvent(new Event("change")); }

  there(track, n) {
    const samples = track.samples();
    return samples >= this.song.samples ? n * this.song.part_seconds < this.seconds : (n + 1) * this.song.part_seconds * this.song.sample_rate <= samples + 0.5;
  }

  tick() {
    if (!this.playing || !this.song || !this.context) return;
    const position = this.position;
    if (!this.waiting && position >= this.seconds - 0.001) {
      this.pause();
      this.at = this.seconds;
      this.changed();
      return;
    }
    const first = Math.min(Math.floor(position / this.song.part_seconds), Math.ceil(this.seconds / this.song.part_seconds) - 1);
    const last = Math.floor(Math.min(position + AHEAD_SECONDS, this.seconds - 0.001) / this.song.part_seconds);
    for (const track of this.tracks) for (let n = first; n <= last; n++) if (this.there(track, n)) this.fetch(track, n);
    const ready = this.tracks.every((track, k) => this.share(k) === 0 || track.parts.get(first)?.buffer);
    if (this.waiting && ready) this.start(position);
    else if (!this.waiting && !ready) { this.at = position; this.waiting = true; this.silence(); this.changed(); }
    if (!this.waiting) for (const track of this.tracks) for (let n = first; n <= last; n++) this.schedule(track, n);
  }

  start(position) {
    const rate = this.context.sampleRate;
    this.origin = this.at = Math.round(position * rate) / rate;
    this.started = Math.ceil((this.context.currentTime + 0.06) * rate) / rate;
    this.waiting = false;
    this.changed();
  }

  schedule(track, n) {
    const part = track.parts.get(n);
    if (!part?.buffer || track.sources.has(n)) return;
    const begins = this.started + n * this.song.part_seconds - this.origin;
    const late = this.context.currentTime + 0.01 - begins; // into the part
    if (late >= part.buffer.duration) return;
    const source = this.context.createBufferSource();
    source.buffer = part.buffer;
    source.connect(track.gain);
    const skip = Math.max(late, Math.max(this.origin - n * this.song.part_seconds, 0), 0);
    source.start(begins + skip, skip);
    source.onended = () => { if (track.sources.get(n) === source) track.sources.delete(n); };
    track.sources.set(n, source);
  }

  async fetch(track, n) {
    if (track.parts.has(n) || performance.now() < track.failed) return;
    const part = {};
    track.parts.set(n, part);
    try {
      const answer = await fetch(track.url(n));
      if (!answer.ok) throw new Error((await answer.json()).error);
      part.buffer = await this.context.decodeAudioData(await answer.arrayBuffer());
      for (const old of track.parts.keys()) if (track.parts.size > KEPT_PARTS && !track.sources.has(old)) track.parts.delete(old);
      this.tick();
    } catch (error) {
      track.parts.delete(n);
      track.failed = performance.now() + 1000;
      this.dispatchEvent(new CustomEvent("trouble", { detail: error.message }));
    }
  }

  // levels of the playing sound, one for each bar from 33 Hz to 16 kHz, 0 to 1
  bars(count) {
    const bars = new Float32Array(count);
    if (!this.analyser || !this.playing) return bars;
    this.data ??= new Uint8Array(this.analyser.frequencyBinCount);
    this.analyser.getByteFrequencyData(this.data);
    const bin = this.context.sampleRate / this.analyser.fftSize;
    for (let k = 0; k < count; k++) {
      const from = 33 * 480 ** (k / count) / bin, to = 33 * 480 ** ((k + 1) / count) / bin;
      let level = this.data[Math.min(Math.round((from + to) / 2), this.data.length - 1)];
      for (let i = Math.ceil(from); i < to && i < this.data.length; i++) level = Math.max(level, this.data[i]);
      bars[k] = level / 255;
    }
    return bars;
  }
}
