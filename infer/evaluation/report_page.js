"use strict";

// One player per file. Original and reconstruction play at once through gains, so a switch keeps the position to
// the sample. The difference, reconstruction minus original, has a gain of -1 for the original.
const FADE = 0.012; // seconds; short enough to compare, long enough not to click
let context = null;
let current = null;

function audioContext() {
  context ??= new AudioContext({ sampleRate: 44100, latencyHint: "interactive" });
  return context;
}

class Player {
  constructor(article) {
    this.article = article;
    this.side = "original";
    this.position = 0;
    this.duration = Number(article.dataset.seconds);
    this.loudness = Number(article.dataset.match);
    this.strips = article.querySelector(".strips");
    this.head = article.querySelector(".head");
    this.seek = article.querySelector(".seek");
    this.loop = article.querySelector(".loop");
    this.match = article.querySelector(".match");
    article.querySelector(".play").addEventListener("click", () => this.toggle());
    for (const button of article.querySelectorAll(".sides button")) {
      button.addEventListener("click", () => this.choose(button.dataset.side));
    }
    this.loop.addEventListener("change", () => {
      if (!this.playing) return;
      this.startedAt += Math.floor((audioContext().currentTime - this.startedAt) / this.duration) * this.duration;
      this.sources.forEach((source) => { source.loop = this.loop.checked; });
    });
    this.match.addEventListener("change", () => this.mix());
    this.seek.addEventListener("input", () => this.jump(this.seek.valueAsNumber * this.duration));
    this.strips.addEventListener("pointerdown", (event) => {
      const box = this.strips.getBoundingClientRect();
      this.jump(Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1) * this.duration);
    });
    for (const event of ["pointerdown", "focusin"]) {
      article.addEventListener(event, () => { current ??= this; }, { passive: true });
    }
    this.choose(this.side);
    this.draw();
  }

  get playing() { return this.article.dataset.state === "playing"; }

  async toggle() {
    if (this.playing) return this.stop();
    if (this.article.dataset.state === "loading") return;
    if (current && current !== this) current.stop();
    current = this;
    const audio = audioContext();
    this.article.dataset.state = "loading";
    try {
      await audio.resume();
      this.buffers ??= await Promise.all([this.decode("original"), this.decode("reconstruction")]);
      this.duration = this.buffers[0].duration;
      if (current === this) this.start();
      else this.article.dataset.state = "stopped";
    } catch (error) {
      this.article.dataset.state = "stopped";
      this.article.querySelector(".trouble").textContent = `This browser cannot play the audio: ${error.message}`;
    }
  }

  async decode(side) {
    const element = this.article.querySelector(`script[data-audio="${side}"]`);
    const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
    const buffer = await audioContext().decodeAudioData(bytes.buffer);
    element.remove();
    return buffer;
  }

  start() {
    const audio = audioContext();
    const when = audio.currentTime + 0.03;
    if (this.position >= this.duration - 0.01) this.position = 0;
    this.gains = this.buffers.map(() => { const gain = audio.createGain(); gain.connect(audio.destination); return gain; });
    this.sources = this.buffers.map((buffer, index) => {
      const source = audio.createBufferSource();
      source.buffer = buffer;
      source.loop = this.loop.checked;
      source.connect(this.gains[index]);
      source.start(when, this.position);
      return source;
    });
    const [first] = this.sources;
    first.onended = () => { if (this.sources?.[0] === first) { this.stop(); this.position = 0; this.draw(); } };
    this.startedAt = when - this.position;
    this.article.dataset.state = "playing";
    this.mix(true);
    this.tick();
  }

  stop() {
    if (this.playing) this.position = this.now();
    const { sources, gains } = this;
    this.sources = null;
    sources?.forEach((source) => source.stop());
    gains?.forEach((gain) => gain.disconnect());
    this.article.dataset.state = "stopped";
    this.draw();
  }

  now() {
    if (!this.playing) return this.position;
    const elapsed = Math.max(audioContext().currentTime - this.startedAt, 0);
    return this.loop.checked ? elapsed % this.duration : Math.min(elapsed, this.duration);
  }

  jump(seconds) {
    const wasPlaying = this.playing;
    if (wasPlaying) this.stop();
    this.position = seconds;
    if (wasPlaying) this.start();
    this.draw();
  }

  choose(side) {
    this.side = side;
    this.article.dataset.side = side;
    for (const button of this.article.querySelectorAll(".sides button")) {
      button.setAttribute("aria-pressed", String(button.dataset.side === side));
    }
    for (const strip of this.article.querySelectorAll(".strip")) {
      strip.classList.toggle("heard", strip.dataset.side === side);
    }
    this.mix();
  }

  mix(atOnce = false) {
    if (!this.playing) return;
    const matched = this.match.checked ? 10 ** (-this.loudness / 20) : 1;
    const levels = { original: [1, 0], reconstruction: [0, matched], difference: [-1, 1] }[this.side];
    const now = audioContext().currentTime;
    this.gains.forEach(({ gain }, index) => {
      if (atOnce) gain.value = levels[index];
      else { gain.cancelScheduledValues(now); gain.setValueAtTime(gain.value, now); gain.linearRampToValueAtTime(levels[index], now + FADE); }
    });
  }

  tick() {
    if (!this.playing) return;
    this.draw();
    requestAnimationFrame(() => this.tick());
  }

  draw() {
    const now = this.now();
    this.article.dataset.position = now.toFixed(3);
    this.strips.style.setProperty("--at", now / this.duration);
    this.head.hidden = now === 0;
    this.seek.value = now / this.duration;
    this.article.querySelector(".time").textContent = `${clock(now)} / ${clock(this.duration)}`;
  }
}

function clock(seconds) {
  const tenths = Math.floor(seconds * 10 + 1e-6);
  return `${Math.floor(tenths / 600)}:${String(Math.floor(tenths / 10) % 60).padStart(2, "0")}.${tenths % 10}`;
}

const players = [...document.querySelectorAll("article.pair")].map((article) => new Player(article));

document.addEventListener("keydown", (event) => {
  const player = current ?? players[0];
  if (!player || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("button, input, a") && event.key === " ") return;
  const side = { 1: "original", 2: "reconstruction", 3: "difference" }[event.key];
  if (side) player.choose(side);
  else if (event.key === " ") { event.preventDefault(); player.toggle(); }
  else if (event.key === "x") player.choose(player.side === "original" ? "reconstruction" : "original");
});

for (const table of document.querySelectorAll("table.results")) {
  const body = table.querySelector("tbody.files");
  table.querySelectorAll("thead th").forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const descending = heading.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const sign = descending ? -1 : 1;
        return sign * (column === 0 ? x.localeCompare(y) : Number(x) - Number(y));
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
