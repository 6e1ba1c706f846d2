// A still from the camera: in the page where the browser allows it, else through the phone's own camera app.

import { $ } from "./dom.js";

const [dialog, video, shoot, capture] = ["viewfinder", "video", "shoot", "capture"].map($);
let take = null;

/** Opens the camera; `taken(blob)` gets the picture, if one is taken. */
export async function open(taken) {
  take = taken;
  if (!navigator.mediaDevices) return capture.click(); // plain http, say on a phone
  problem("");
  dialog.showModal();
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: { ideal: "environment" }, width: { ideal: 1920 } } });
    if (dialog.open) video.srcObject = stream;
    else stop(stream);
  } catch (error) {
    problem(error.name === "NotAllowedError" ? "The browser does not let this page use the camera." : "No camera could be opened.");
  }
}

function problem(text) {
  $("camera-problem").textContent = text;
  $("camera-problem").hidden = $("capture-label").hidden = !text;
  video.hidden = shoot.hidden = Boolean(text);
}

const stop = (stream) => stream?.getTracks().forEach((track) => track.stop());

video.addEventListener("loadeddata", () => {
  shoot.disabled = false;
  shoot.focus();
});
shoot.addEventListener("click", () => {
  const still = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
  still.getContext("2d").drawImage(video, 0, 0);
  dialog.close();
  still.toBlob(take, "image/jpeg", 0.92);
});
capture.addEventListener("change", () => {
  const [file] = capture.files;
  dialog.close();
  if (file) take(file);
  capture.value = "";
});
$("close-camera").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => {
  stop(video.srcObject);
  video.srcObject = null;
  shoot.disabled = true;
});
