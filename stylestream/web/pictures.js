// What is drawn: spectrograms with note names, waveforms, the bars of the playing sound, canvases being painted, a curve.

const STOPS = {
  dark: ["#0b0714", "#251255", "#6a1c81", "#b63679", "#f1605d", "#feb078", "#fdfbc8"],
  light: ["#fffaf4", "#ffe6c9", "#fdb97f", "#ee6a5f", "#b0357b", "#641a80", "#1f0c48"],
};
const NOTES = [1, 2, 3, 4, 5, 6, 7, 8, 9];
const ROWS = 324, ROWS_AN_OCTAVE = 36;

export const theme = () => (document.documentElement.dataset.theme === "light" ? "light" : "dark");
const colours = {};
const colour = (name) => (colours[theme() + name] ??= getComputedStyle(document.documentElement).getPropertyValue(name).trim());

const palettes = {};
function palette() {
  const name = theme();
  if (palettes[name]) return palettes[name];
  const stops = STOPS[name].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const table = new Uint8ClampedArray(256 * 3);
  for (let v = 0; v < 256; v++) {
    // a little dark: what is soft is mostly haze
    const at = (v / 255) ** 1.4 * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) table[3 * v + c] = stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]);
  }
  return (palettes[name] = table);
}

// a canvas at the screen's own resolution
function fitted(canvas) {
  const box = canvas.getBoundingClientRect(), scale = Math.min(devicePixelRatio || 1, 2);
  const width = Math.max(Math.round(box.width * scale), 1), height = Math.max(Math.round(box.height * scale), 1);
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, box.width, box.height);
  return [pen, box.width, box.height];
}

// a grey PNG as {width, height, data}
export async function grey(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error((await answer.json()).error);
  const bitmap = await createImageBitmap(await answer.blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height), pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(bitmap, 0, 0);
  const pixels = pen.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const data = new Uint8Array(bitmap.width * bitmap.height);
  for (let i = 0; i < data.length; i++) data[i] = pixels[4 * i];
  return { width: bitmap.width, height: bitmap.height, data };
}

function coloured({ width, height, data }) {
  const canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d"), image = pen.createImageData(width, height), table = palette();
  for (let i = 0; i < data.length; i++) {
    const v = 3 * data[i];
    image.data[4 * i] = table[v]; image.data[4 * i + 1] = table[v + 1]; image.data[4 * i + 2] = table[v + 2]; image.data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

// for a card: the middle octaves, no axis
export function thumbnail(canvas, picture) {
  const [pen, width, height] = fitted(canvas);
  const image = coloured(picture);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, 0, picture.height * 0.12, Math.min(picture.width, 420), picture.height * 0.62, 0, 0, width, height);
}

export class Spectrogram {
  constructor(canvas) { this.canvas = canvas; this.picture = null; }
  show(picture, seconds) { this.picture = picture; this.seconds = seconds; this.image = picture && coloured(picture); this.shown = this.base = null; this.draw(0); }
  recolour() { if (this.picture) this.show(this.picture, this.seconds); }
  draw(position) {
    const box = this.canvas.getBoundingClientRect();
    const at = this.picture ? Math.round((2 * position * box.width) / this.seconds) : -1, now = `${at} ${box.width} ${box.height}`;
    if (now === this.shown) return; // not a pixel has changed
    this.shown = now;
    const [pen, width, height] = fitted(this.canvas);
    if (!this.picture) return;
    if (this.base?.width !== this.canvas.width || this.base.height !== this.canvas.height) this.base = this.lasting(width, height);
    pen.drawImage(this.base, 0, 0, width, height);
    if (position > 0) { pen.fillStyle = colour("--ink"); pen.fillRect(at / 2 - 0.75, 0, 1.5, height); }
  }
  // all but the play head, at the screen's resolution
  lasting(width, height) {
    const base = new OffscreenCanvas(this.canvas.width, this.canvas.height), pen = base.getContext("2d");
    pen.scale(base.width / width, base.height / height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(this.image, 0, 0, width, height);
    names(pen, width, height);
    return base;
  }
}

function names(pen, width, height) {
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const octave of NOTES.filter((k) => height > 170 || k % 2)) {
    const y = height * (1 - ((octave - 1) * ROWS_AN_OCTAVE + 0.5) / ROWS);
    pen.fillStyle = theme() === "light" ? "#0001" : "#ffffff1c";
    pen.fillRect(0, y, width, 1);
    const label = `C${octave}`, wide = pen.measureText(label).width + 8, up = Math.max(Math.min(y, height - 8), 8);
    pen.fillStyle = theme() === "light" ? "#fffd" : "#0b0714c0";
    pen.fillRect(0, up - 7.5, wide, 15);
    pen.fillStyle = theme() === "light" ? "#241a2e" : "#f5f1fb";
    pen.fillText(label, 4, up + 0.5);
  }
}

// one sound, above and below the middle
export function strip(canvas, peaks, position) {
  const [pen, width, height] = fitted(canvas), bars = Math.floor(width / 3), highest = Math.max(...peaks, 1);
  const ahead = colour("--wave"), played = colour("--accent");
  for (let k = 0; k < bars; k++) {
    const a = Math.floor((k / bars) * peaks.length), b = Math.max(Math.floor(((k + 1) / bars) * peaks.length), a + 1);
    const high = Math.max((Math.max(...peaks.slice(a, b)) / highest) * (height - 8), 2);
    pen.fillStyle = k / bars < position ? played : ahead;
    pen.fillRect(k * 3, (height - high) / 2, 2, high);
  }
}

// the song above, the result below, what is made so far, and where one is
export function wave(canvas, { song, result, made, position }) {
  const [pen, width, height] = fitted(canvas), middle = height / 2;
  const bars = Math.floor(width / 3);
  const draw = (peaks, from, to) => {
    const highest = Math.max(...peaks, 1);
    for (let k = 0; k < bars; k++) {
      const a = Math.floor((k / bars) * peaks.length), b = Math.max(Math.floor(((k + 1) / bars) * peaks.length), a + 1);
      let level = 0;
      for (let i = a; i < b; i++) level = Math.max(level, peaks[i] / highest);
      const high = Math.max(level * (middle - 6), 1), played = k / bars <= position;
      pen.fillStyle = played ? to : from;
      pen.fillRect(k * 3, peaks === song ? middle - 1 - high : middle + 1, 2, high);
    }
  };
  if (result || made > 0) {
    pen.fillStyle = colour("--raised");
    pen.fillRect(0, middle, width * (result ? 1 : made), middle);
  }
  if (song) draw(song, colour("--wave"), colour("--ink"));
  if (result) draw(result, colour("--wave"), colour("--accent"));
  pen.fillStyle = colour("--ink");
  pen.fillRect(Math.max(position * width - 1, 0), 0, 2, height);
}

export class Visual {
  constructor(canvas) { this.canvas = canvas; this.peaks = new Float32Array(0); }
  draw(levels) {
    const [pen, width, height] = fitted(this.canvas), count = levels.length, step = width / count, floor = height * 0.78;
    if (this.peaks.length !== count) this.peaks = new Float32Array(count);
    const shade = pen.createLinearGradient(0, 0, width, 0);
    [["0", "#7c3aed"], ["0.35", "#c026d3"], ["0.65", "#ec4899"], ["1", "#fb923c"]].forEach(([at, hex]) => shade.addColorStop(+at, hex));
    for (let k = 0; k < count; k++) {
      const high = Math.max(levels[k] ** 1.6 * (floor - 10), 2);
      this.peaks[k] = Math.max(this.peaks[k] - 1.1, high);
      pen.fillStyle = shade;
      pen.globalAlpha = 1;
      pen.beginPath();
      pen.roundRect(k * step + 1, floor - high, Math.max(step - 2, 1), high, 3);
      pen.fill();
      pen.globalAlpha = 0.22; // its reflection
      pen.fillRect(k * step + 1, floor + 3, Math.max(step - 2, 1), high * 0.28);
      pen.globalAlpha = 0.8;
      pen.fillStyle = colour("--ink");
      if (this.peaks[k] > 4) pen.fillRect(k * step + 1, floor - this.peaks[k] - 3, Math.max(step - 2, 1), 1.5);
    }
    pen.globalAlpha = 1;
  }
}

export class Painting {
  constructor(canvas, tell) { this.canvas = canvas; this.tell = tell; this.frames = []; this.at = 0; this.goal = null; }
  show(picture) {
    this.frames = [];
    for (let top = 0; top < picture.height; top += ROWS) this.frames.push(picture.data.subarray(top * picture.width, (top + ROWS) * picture.width));
    this.width = picture.width;
    this.mixed = new Uint8Array(ROWS * this.width);
    this.run();
  }
  get steps() { return this.frames.length; }
  name(k) { return k <= 0 ? "your song" : k === this.steps - 1 ? "with its texture" : `stroke ${k} of ${this.steps - 2}`; }
  run() { this.at = 0; this.goal = performance.now() + 900; this.draw(); }
  go(step) { this.goal = null; this.at = step; this.draw(); }
  tick(now) {
    if (this.goal === null || !this.steps) return;
    if (now < this.goal) return;
    this.at = Math.min((now - this.goal) / 800, this.steps - 1);
    if (this.at >= this.steps - 1) this.goal = null;
    this.draw();
  }
  draw() {
    if (!this.steps) return;
    const k = Math.min(Math.floor(this.at), this.steps - 1), next = Math.min(k + 1, this.steps - 1);
    const share = Math.min(Math.max((this.at - k - 0.35) / 0.65, 0), 1), mix = Math.round(256 * share * share * (3 - 2 * share));
    const a = this.frames[k], b = this.frames[next];
    for (let i = 0; i < a.length; i++) this.mixed[i] = (a[i] * (256 - mix) + b[i] * mix) >> 8;
    const [pen, width, height] = fitted(this.canvas);
    pen.drawImage(coloured({ width: this.width, height: ROWS, data: this.mixed }), 0, 0, width, height);
    names(pen, width, height);
    this.tell(Math.round(this.at), this.name(Math.round(this.at)));
  }
}

// rows: [{minutes, way}], ways in 0 … 1
export function curve(canvas, rows, ceiling, minutes) {
  const [pen, width, height] = fitted(canvas), left = 46, bottom = height - 26, top = 12, right = width - 12;
  const ways = rows.map((row) => 100 * row.way), low = Math.min(0, ...ways), high = Math.max(20, 100 * (ceiling ?? 0), ...ways) * 1.1;
  const x = (m) => left + (m / Math.max(minutes, 0.01)) * (right - left), y = (w) => bottom - ((w - low) / (high - low)) * (bottom - top);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const step = high - low > 60 ? 20 : high - low > 25 ? 10 : 5;
  for (let w = Math.ceil(low / step) * step; w <= high; w += step) {
    pen.fillStyle = colour("--line");
    pen.fillRect(left, y(w), right - left, 1);
    pen.fillStyle = colour("--soft");
    pen.textAlign = "right";
    pen.fillText(`${w} %`, left - 8, y(w));
  }
  pen.textAlign = "center";
  for (let k = 0; k <= 4; k++) pen.fillText(minutes < 2 ? `${Math.round(15 * minutes * k)} s` : `${+((minutes * k) / 4).toFixed(1)} min`, Math.min(x((minutes * k) / 4), right - 18), height - 10);
  if (!rows.length) { pen.fillText("the first score comes after a while", (left + right) / 2, (top + bottom) / 2); return; }
  if (ceiling !== undefined) {
    pen.fillText("as good as frames can sound", (left + right) / 2, y(100 * ceiling) - 9);
    pen.strokeStyle = colour("--soft");
    pen.setLineDash([4, 5]);
    pen.beginPath();
    pen.moveTo(left, y(100 * ceiling));
    pen.lineTo(right, y(100 * ceiling));
    pen.stroke();
    pen.setLineDash([]);
  }
  pen.strokeStyle = pen.fillStyle = colour("--accent");
  pen.lineWidth = 2.5;
  pen.lineJoin = "round";
  pen.beginPath();
  rows.forEach((row, k) => pen[k ? "lineTo" : "moveTo"](x(row.minutes), y(100 * row.way)));
  pen.stroke();
  for (const row of rows) { pen.beginPath(); pen.arc(x(row.minutes), y(100 * row.way), 4, 0, 7); pen.fill(); }
}
