/* A small 3D viewer: points drawn straight into an image with a depth buffer, lines on top. No library, no network.
   Drag turns, wheel zooms, shift-drag (or right drag) shifts; the slider and the video move through time. */
"use strict";

function decode(text, Type) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Type(bytes.buffer);
}

function unpack(scene, text) {
  const packed = decode(text, Uint16Array), xyz = new Float32Array(packed.length);
  for (let i = 0; i < packed.length; i++) xyz[i] = scene.low[i % 3] + scene.step[i % 3] * packed[i];
  return xyz;
}

const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = (a) => { const n = Math.hypot(...a) || 1; return a.map((v) => v / n); };

class Viewer {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.scene = scene;
    this.key = 0;
    this.show = { points: true, moving: true, trails: true, boxes: true, cameras: true };
    this.byObject = false;
    this.staticXyz = unpack(scene, scene.static.xyz);
    this.staticRgb = decode(scene.static.rgb, Uint8Array);
    this.staticSize = decode(scene.static.size, Uint8Array);
    this.movingXyz = unpack(scene, scene.moving.xyz);
    this.movingRgb = decode(scene.moving.rgb, Uint8Array);
    this.movingId = decode(scene.moving.id, Uint16Array);
    this.starts = [0];
    for (const n of scene.moving.counts) this.starts.push(this.starts[this.starts.length - 1] + n);
    this.colourOf = {};
    for (const o of scene.objects) this.colourOf[o.id] = o.colour;
    this.home();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  /* Looks at the middle of what moves from behind and above the camera's first position. */
  home() {
    const s = this.scene, up = unit(s.up);
    const centres = [];
    for (const o of s.objects) for (const b of o.boxes) if (b) centres.push(b.slice(9, 12));
    const pick = (list, k) => { const v = list.map((p) => p[k]).sort((a, b) => a - b); return v[v.length >> 1]; };
    const extent = s.step.map((v) => v * 65535);
    if (centres.length) this.target = [0, 1, 2].map((k) => pick(centres, k));
    else this.target = [0, 1, 2].map((k) => s.low[k] + extent[k] / 2);
    const camera = s.cameras.find((c) => c);
    const helper = Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    this.axisA = unit(cross(up, helper));
    this.axisB = cross(up, this.axisA);
    this.up = up;
    let yaw = 0.6, pitch = 0.5, distance = 0.75 * Math.hypot(...extent);
    this.reach = 0.5 * distance;
    if (camera) {
      const away = [0, 1, 2].map((k) => camera[9 + k] - this.target[k]);
      const height = dot(away, up);
      this.reach = Math.hypot(...away);
      distance = 1.05 * Math.max(Math.hypot(...away), 0.08 * Math.hypot(...extent));
      yaw = Math.atan2(dot(away, this.axisB), dot(away, this.axisA)) + 0.25;
      pitch = Math.asin(Math.max(-0.2, Math.min(0.9, height / (Math.hypot(...away) || 1)))) + 0.22;
    }
    this.yaw = yaw; this.pitch = Math.min(1.4, pitch); this.distance = distance;
    this.draw();
  }

  listen() {
    const c = this.canvas;
    let last = null;
    c.addEventListener("pointerdown", (e) => { last = [e.clientX, e.clientY]; c.setPointerCapture(e.pointerId); });
    c.addEventListener("pointerup", () => { last = null; });
    c.addEventListener("pointermove", (e) => {
      if (!last) return;
      const dx = e.clientX - last[0], dy = e.clientY - last[1];
      last = [e.clientX, e.clientY];
      if (e.shiftKey || e.buttons & 2) {
        const f = this.frame(), k = this.distance / (1.2 * c.clientHeight);
        for (let i = 0; i < 3; i++) this.target[i] += (-dx * f.right[i] + dy * f.upper[i]) * k;
      } else {
        this.yaw -= dx * 0.008;
        this.pitch = Math.max(-1.5, Math.min(1.5, this.pitch + dy * 0.008));
      }
      this.draw();
    });
    c.addEventListener("contextmenu", (e) => e.preventDefault());
    c.addEventListener("wheel", (e) => { e.preventDefault(); this.distance *= Math.exp(e.deltaY * 0.001); this.draw(); }, { passive: false });
    c.addEventListener("dblclick", () => this.home());
  }

  resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    this.canvas.width = Math.max(2, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(2, Math.round(this.canvas.clientHeight * ratio));
    this.image = null;
    this.draw();
  }

  frame() {
    const cp = Math.cos(this.pitch), sp = Math.sin(this.pitch), cy = Math.cos(this.yaw), sy = Math.sin(this.yaw);
    const back = [0, 1, 2].map((k) => cp * (cy * this.axisA[k] + sy * this.axisB[k]) + sp * this.up[k]);
    const right = unit(cross(this.up, back)), upper = cross(back, right);
    const eye = [0, 1, 2].map((k) => this.target[k] + this.distance * back[k]);
    return { back, right, upper, eye };
  }

  project(p, f) {
    const d = [p[0] - f.eye[0], p[1] - f.eye[1], p[2] - f.eye[2]];
    const z = -dot(d, f.back);
    if (z < 1e-3 * this.distance) return null;
    const s = (1.2 * this.canvas.height) / z;
    return [this.canvas.width / 2 + s * dot(d, f.right), this.canvas.height / 2 - s * dot(d, f.upper), z];
  }

  splat(xyz, begin, end, rgbOf, sizeOf, f) {
    const w = this.canvas.width, h = this.canvas.height, px = this.image.data, zb = this.depth;
    const { eye, right, upper, back } = f, focal = 1.2 * h, near = 1e-3 * this.distance;
    for (let i = begin; i < end; i++) {
      const x = xyz[3 * i] - eye[0], y = xyz[3 * i + 1] - eye[1], z = xyz[3 * i + 2] - eye[2];
      const depth = -(x * back[0] + y * back[1] + z * back[2]);
      if (depth < near) continue;
      const s = focal / depth;
      const u = (w / 2 + s * (x * right[0] + y * right[1] + z * right[2])) | 0;
      const v = (h / 2 - s * (x * upper[0] + y * upper[1] + z * upper[2])) | 0;
      const r = Math.max(1, Math.min(10, Math.round(sizeOf(i) * s)));
      if (u < 0 || v < 0 || u + r > w || v + r > h) continue;
      const c = rgbOf(i);
      for (let b = v; b < v + r; b++) for (let a = u; a < u + r; a++) {
        const k = b * w + a;
        if (depth >= zb[k]) continue;
        zb[k] = depth;
        px[4 * k] = c[0]; px[4 * k + 1] = c[1]; px[4 * k + 2] = c[2];
      }
    }
  }

  draw() {
    if (!this.canvas.width || !this.staticXyz) return;
    const w = this.canvas.width, h = this.canvas.height, f = this.frame();
    if (!this.image) { this.image = this.context.createImageData(w, h); this.depth = new Float32Array(w * h); }
    new Uint32Array(this.image.data.buffer).fill(0xff24201e);
    this.depth.fill(Infinity);
    const rgb = [0, 0, 0], grain = this.scene.sizeUnit;
    if (this.show.points) this.splat(this.staticXyz, 0, this.staticXyz.length / 3, (i) => {
      for (let k = 0; k < 3; k++) rgb[k] = 0.82 * this.staticRgb[3 * i + k]; return rgb; }, (i) => grain * this.staticSize[i], f);
    if (this.show.moving) this.splat(this.movingXyz, this.starts[this.key], this.starts[this.key + 1], (i) => {
      const c = this.colourOf[this.movingId[i]];
      if (this.byObject && c) return c;
      for (let k = 0; k < 3; k++) rgb[k] = this.movingRgb[3 * i + k]; return rgb; }, () => this.scene.movingSize, f);
    this.context.putImageData(this.image, 0, 0);
    this.lines(f);
  }

  path(points, f) {
    const g = this.context;
    let open = false;
    g.beginPath();
    for (const p of points) {
      const q = p && this.project(p, f);
      if (!q) { open = false; continue; }
      if (open) g.lineTo(q[0], q[1]); else g.moveTo(q[0], q[1]);
      open = true;
    }
    g.stroke();
  }

  lines(f) {
    const g = this.context, s = this.scene, k = this.key, scale = Math.min(2, window.devicePixelRatio || 1);
    g.lineJoin = "round";
    if (this.show.trails) {
      for (const t of s.trails) {
        g.strokeStyle = `rgba(${t.colour},0.55)`; g.lineWidth = scale;
        this.path(t.path.slice(Math.max(0, k - 30), k + 1), f);
      }
      for (const o of s.objects) {
        g.strokeStyle = `rgb(${o.colour})`; g.lineWidth = 2.2 * scale;
        this.path(o.boxes.slice(0, k + 1).map((b) => b && b.slice(9, 12)), f);
      }
    }
    if (this.show.boxes) for (const o of s.objects) if (o.boxes[k]) this.box(o, o.boxes[k], o.phases[k], f, scale);
    if (this.show.cameras) {
      g.strokeStyle = "rgba(255,255,255,0.75)"; g.lineWidth = 1.4 * scale;
      this.path(s.cameras.slice(0, k + 1).map((c) => c && c.slice(9, 12)), f);
      if (s.cameras[k]) this.camera(s.cameras[k], f);
    }
  }

  box(object, b, phase, f, scale) {
    const g = this.context, corners = [];
    for (let i = 0; i < 8; i++) {
      const h = [0, 1, 2].map((a) => ((i >> a) & 1 ? 0.5 : -0.5) * b[12 + a]);
      corners.push([0, 1, 2].map((r) => b[3 * r] * h[0] + b[3 * r + 1] * h[1] + b[3 * r + 2] * h[2] + b[9 + r]));
    }
    g.strokeStyle = `rgb(${object.colour})`; g.lineWidth = 1.6 * scale;
    g.setLineDash(phase === "tracked" || phase === "new" ? [] : [4 * scale, 4 * scale]);
    for (let i = 0; i < 8; i++) for (const a of [1, 2, 4]) if (!(i & a)) this.path([corners[i], corners[i | a]], f);
    g.setLineDash([]);
    const top = corners.map((c) => this.project(c, f)).filter((c) => c).sort((p, q) => p[1] - q[1])[0];
    if (top) {
      const text = `${object.id} ${object.label}`.trim() + (phase === "tracked" || phase === "new" ? "" : ` (${phase})`);
      g.font = `600 ${12 * scale}px system-ui, sans-serif`;
      g.lineWidth = 3 * scale; g.strokeStyle = "rgba(30,32,36,0.85)"; g.strokeText(text, top[0] + 4, top[1] - 6);
      g.fillStyle = `rgb(${object.colour})`; g.fillText(text, top[0] + 4, top[1] - 6);
    }
  }

  camera(c, f) {
    const depth = 0.12 * this.reach, [hw, hh] = this.scene.view;
    const at = (x, y, z) => [0, 1, 2].map((r) => c[3 * r] * x + c[3 * r + 1] * y + c[3 * r + 2] * z + c[9 + r]);
    const corners = [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => at(x * hw * depth, y * hh * depth, depth));
    this.path([...corners, corners[0]], f);
    for (const p of corners) this.path([at(0, 0, 0), p], f);
  }
}

/* --- the page: one clock for the video (or pictures), the 3D view and the slider --- */
window.addEventListener("DOMContentLoaded", () => {
  const scene = JSON.parse(document.getElementById("scene-data").textContent);
  const viewer = new Viewer(document.getElementById("view"), scene);
  window.viewer = viewer;
  const slider = document.getElementById("time"), label = document.getElementById("time-label");
  const video = document.getElementById("video"), picture = document.getElementById("picture");
  const play = document.getElementById("play");
  const keys = scene.keyframes, last = keys.length - 1;
  const page = JSON.parse(document.getElementById("page-data").textContent);
  slider.max = last;

  function nearest(list, value) {
    let best = 0;
    for (let i = 1; i < list.length; i++) if (Math.abs(list[i] - value) < Math.abs(list[best] - value)) best = i;
    return best;
  }
  function set(key, from) {
    key = Math.max(0, Math.min(last, key));
    viewer.key = key; viewer.draw();
    slider.value = key;
    label.textContent = `frame ${keys[key]} · ${scene.seconds[key].toFixed(2)} s`;
    if (from !== "video" && video) video.currentTime = Math.min((keys[key] + 0.5) / page.rate, video.duration || 1e9);
    if (picture) picture.src = page.pictures[nearest(page.pictureFrames, keys[key])];
  }
  slider.addEventListener("input", () => { pause(); set(Number(slider.value)); });
  let timer = null;
  function pause() { if (video) video.pause(); if (timer) clearInterval(timer); timer = null; play.textContent = "▶ play"; }
  function start() {
    play.textContent = "❚❚ pause";
    if (video) { video.play(); return; }
    const period = 1000 * (keys.length > 1 ? (keys[last] - keys[0]) / last : 1) / page.frameRate;
    timer = setInterval(() => set(viewer.key >= last ? 0 : viewer.key + 1), Math.max(33, period));
  }
  play.addEventListener("click", () => ((video ? !video.paused : timer) ? pause() : start()));
  if (video) {
    const follow = () => { set(nearest(keys, Math.floor(video.currentTime * page.rate + 1e-3)), "video"); if (!video.paused) requestAnimationFrame(follow); };
    video.addEventListener("play", () => { play.textContent = "❚❚ pause"; follow(); });
    video.addEventListener("pause", () => { play.textContent = "▶ play"; });
    video.addEventListener("seeked", () => { if (video.paused) set(nearest(keys, Math.floor(video.currentTime * page.rate + 1e-3)), "video"); });
  }
  for (const box of document.querySelectorAll("[data-show]")) {
    box.addEventListener("change", () => { viewer.show[box.dataset.show] = box.checked; viewer.draw(); });
  }
  const by = document.getElementById("by-object");
  by.addEventListener("change", () => { viewer.byObject = by.checked; viewer.draw(); });
  document.getElementById("home").addEventListener("click", () => viewer.home());
  const renders = document.getElementById("render-index");
  if (renders) renders.addEventListener("input", () => {
    document.querySelectorAll(".render-set").forEach((set, k) => set.classList.toggle("hidden", k !== Number(renders.value)));
  });
  set(Math.round(page.startAt * last));
});
