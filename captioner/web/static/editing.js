// Each caption of the gallery is sent when typing pauses, and at the latest when its field is left.
const waiting = new Map();
function send(field) {
  clearTimeout(waiting.get(field));
  waiting.delete(field);
  trigger("input", { index: Number(field.dataset.index), text: field.value });
}
element.addEventListener("input", (event) => {
  clearTimeout(waiting.get(event.target));
  waiting.set(event.target, setTimeout(send, 400, event.target));
});
element.addEventListener("focusout", (event) => {
  if (waiting.has(event.target)) send(event.target);
});
