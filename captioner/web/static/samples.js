// A click on a sample chooses it.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-sample]");
  if (button) trigger("select", { name: button.dataset.sample });
});
